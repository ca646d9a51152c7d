# Redis Stack with its data folder owned by an unprivileged user.
FROM redis/redis-stack-server:7.4.0-v1
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
ENTRYPOINT []
