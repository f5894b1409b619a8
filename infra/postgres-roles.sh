#!/bin/sh
# Run once by the postgres image, on an empty data folder. Two roles: one owns the schema and changes it, one serves.
# What the serving role may do is granted by `sallyport migrate`, table by table.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
  --set=migrate_password="$SALLYPORT_MIGRATE_PASSWORD" --set=serve_password="$SALLYPORT_SERVE_PASSWORD" <<'SQL'
create role sallyport_migrate login password :'migrate_password';
create role sallyport_serve login password :'serve_password';
create database sallyport owner sallyport_migrate;
revoke all on database sallyport from public;
grant connect on database sallyport to sallyport_serve;
SQL
