-- Tells every gateway at once what was withdrawn; ids only. A gateway that misses it finds out by asking (limits.ts,
-- RIGHTS_POLL_MS), so nothing depends on it but a second.

create function tell_withdrawal() returns trigger language plpgsql as $$
begin
  perform pg_notify('sallyport', tg_argv[0] || ' ' || old.id);
  return null;
end
$$;

create trigger tokens_withdrawn after update on tokens for each row
  when (old.revoked_at is null and new.revoked_at is not null) execute function tell_withdrawal('token');
create trigger tokens_gone after delete on tokens for each row execute function tell_withdrawal('token');

create trigger orgs_withdrawn after update on orgs for each row
  when (new.frozen and not old.frozen) execute function tell_withdrawal('org');

create trigger workspaces_withdrawn after update on workspaces for each row when (
  new.tier < old.tier
  or (old.org_id, old.deleted_at, old.driver, old.instance_id, old.region, old.os_user, old.host, old.port, old.container)
    is distinct from
    (new.org_id, new.deleted_at, new.driver, new.instance_id, new.region, new.os_user, new.host, new.port, new.container)
) execute function tell_withdrawal('workspace');
create trigger workspaces_gone after delete on workspaces for each row execute function tell_withdrawal('workspace');
