"""What lies beneath a bucket: obstore for the bytes, boto3 for listings and for names that obstore does not take."""
