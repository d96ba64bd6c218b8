# One small instance with a database for each system that keeps its state there, as in infra/compose.yaml. Create those with
# infra/images/create-databases.sh. RDS generates and stores the password; it is in no file and not in Terraform's state.
resource "aws_db_subnet_group" "state" {
  count = var.database == null ? 0 : 1

  name       = "${var.bucket}-state"
  subnet_ids = var.database.subnet_ids
}

resource "aws_db_instance" "state" {
  count = var.database == null ? 0 : 1

  identifier                   = "${var.bucket}-state"
  engine                       = "postgres"
  engine_version               = "18"
  instance_class               = var.database.instance_class
  allocated_storage            = var.database.storage_gb
  max_allocated_storage        = var.database.storage_gb * 4
  storage_encrypted            = true
  kms_key_id                   = var.kms_key_arn
  username                     = "headrace"
  manage_master_user_password  = true
  db_subnet_group_name         = aws_db_subnet_group.state[0].name
  vpc_security_group_ids       = var.database.security_group_ids
  publicly_accessible          = false
  multi_az                     = true
  backup_retention_period      = 14
  copy_tags_to_snapshot        = true
  deletion_protection          = true
  final_snapshot_identifier    = "${var.bucket}-state-final"
  performance_insights_enabled = true
}
