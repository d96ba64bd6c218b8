# A small S3 server for one machine. It keeps no object versions and ignores If-Match: for more than a trial, use S3 itself.
FROM rclone/rclone:1.75.2

RUN adduser -D -u 50000 -G root storage \
    && install -d -o 50000 -g 0 -m 0770 /data

COPY infra/images/serve-bucket.sh /usr/local/bin/serve-bucket

USER 50000:0
EXPOSE 8333
ENTRYPOINT ["serve-bucket"]
