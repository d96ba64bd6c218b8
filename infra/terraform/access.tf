# Two roles. The pipeline reads the sources and adds to the DVC remote; it can delete nothing, so neither can a bug in it.
# The reader is what a researcher needs for `dvc pull`.
locals {
  source_objects = "${aws_s3_bucket.lake.arn}/${var.prefixes.sources}/*"
  remote_objects = "${aws_s3_bucket.lake.arn}/${var.prefixes.remote}/*"
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
    actions   = ["s3:GetBucketLocation", "s3:ListBucket"]
    resources = [aws_s3_bucket.lake.arn]
  }

  statement {
    sid       = "ReadReleases"
    actions   = ["s3:GetObject"]
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
    actions   = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucketVersions"]
    resources = [aws_s3_bucket.lake.arn, local.source_objects]
  }

  statement {
    sid       = "AddToReleases"
    actions   = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"]
    resources = [local.remote_objects]
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
    pipeline = data.aws_iam_policy_document.pipeline.json
    reader   = data.aws_iam_policy_document.reader.json
  }[each.key]
}
