output "environment" {
  description = "Settings of the pipeline's environment that follow from this plan."
  value = {
    AWS_DEFAULT_REGION = var.region
    HEADRACE_BUCKET    = aws_s3_bucket.lake.id
  }
}

output "role_arns" {
  description = "Roles to assume: the pipeline's, the reader's for `dvc pull` and for backups, maintenance for `headrace gc --remote`."
  value       = { for name, role in aws_iam_role.access : name => role.arn }
}

output "database" {
  description = "Address of PostgreSQL and the secret that holds its password."
  value = one([for state in aws_db_instance.state : {
    address    = state.address
    secret_arn = state.master_user_secret[0].secret_arn
  }])
}
