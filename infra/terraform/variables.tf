variable "region" {
  description = "Region of the bucket and the database."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket that holds the raw objects and the DVC remote."
  type        = string
}

variable "prefixes" {
  description = "Where in the bucket the raw objects arrive, where the DVC remote is (its url in .dvc/config), and where logs of tasks go."
  type        = object({ sources = string, remote = string, logs = optional(string, "logs") })
  default     = { sources = "sources", remote = "dvc" }
}

variable "kms_key_arn" {
  description = "Key that encrypts the bucket and the database; without one, S3's and RDS's own."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "Days that a replaced or deleted object can still be brought back. Lineage names object versions: keep it longer than your audits reach."
  type        = number
  default     = 365

  validation {
    condition     = var.noncurrent_days >= 30
    error_message = "Releases refer to object versions by id; keep at least 30 days of them."
  }
}

variable "trusted_role_arns" {
  description = "Roles that may become the pipeline's, the reader's or the maintenance role: the Airflow nodes', a CI runner's, a researcher's, an operator's."
  type        = object({ pipeline = list(string), reader = list(string), maintenance = optional(list(string), []) })

  validation {
    condition     = length(var.trusted_role_arns.pipeline) > 0
    error_message = "Name at least one role that runs the pipeline."
  }
}

variable "database" {
  description = "PostgreSQL for Airflow, Feast's registry and Label Studio; null when there is one already."
  type = object({
    instance_class     = string
    storage_gb         = number
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}
