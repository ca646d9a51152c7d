# The tutorial's own Redis: 6.2 with RedisJSON and RedisGears 1.x, run by an unprivileged user. The image is no longer
# built, so `latest` stands still; it has no tags by version.
FROM redislabs/redismod:latest
RUN chown redis:redis /data
USER redis
