"""The S3 API: obstore for the bytes of objects, boto3 for listings and for names that obstore does not take."""
