# Three roles. The pipeline reads the sources and adds to the DVC remote; it can delete nothing, so neither can a bug in it.
# The reader is what a researcher needs for `dvc pull`, and a backup to copy the remote. Maintenance runs `headrace gc --remote`: what
# it deletes becomes an older version, which nobody can delete, and can be brought back for `noncurrent_days`.
locals {
  source_objects = "${aws_s3_bucket.lake.arn}/${var.prefixes.sources}/*"
  remote_objects = "${aws_s3_bucket.lake.arn}/${var.prefixes.remote}/*"
  log_objects    = "${aws_s3_bucket.lake.arn}/${var.prefixes.logs}/*"
  trusted        = { for role, arns in var.trusted_role_arns : role => arns if length(arns) > 0 }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.trusted

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = each.value
    }
  }
}

data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "List"
    actions   = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.lake.arn]
  }

  statement {
    sid       = "ReadReleases"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = [local.remote_objects]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "pipeline" {
  source_policy_documents = [data.aws_iam_policy_document.reader.json]

  statement {
    sid       = "ReadSources"
    actions   = ["s3:GetObject", "s3:GetObjectVersion"]
    resources = [local.source_objects]
  }

  statement {
    sid       = "AddToReleases"
    actions   = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"]
    resources = [local.remote_objects]
  }

  # Airflow reads a task's log before it appends to it.
  statement {
    sid       = "Log"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [local.log_objects]
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "Encrypt"
      actions   = ["kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "maintenance" {
  source_policy_documents = [data.aws_iam_policy_document.pipeline.json]

  statement {
    sid       = "DeleteUnreferenced"
    actions   = ["s3:DeleteObject"]
    resources = [local.remote_objects]
  }
}

resource "aws_iam_role" "access" {
  for_each = local.trusted

  name               = "${var.bucket}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy" "access" {
  for_each = local.trusted

  name = "lake"
  role = aws_iam_role.access[each.key].id
  policy = {
    maintenance = data.aws_iam_policy_document.maintenance.json
    pipeline    = data.aws_iam_policy_document.pipeline.json
    reader      = data.aws_iam_policy_document.reader.json
  }[each.key]
}
