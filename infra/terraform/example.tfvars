region = "eu-central-1"
bucket = "example-headrace"
trusted_role_arns = {
  pipeline    = ["arn:aws:iam::111122223333:role/airflow-node"]
  reader      = ["arn:aws:iam::111122223333:role/researcher"]
  maintenance = ["arn:aws:iam::111122223333:role/operator"]
}
