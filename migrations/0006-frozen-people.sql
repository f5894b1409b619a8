-- People who may do nothing in an org: neither by a session nor by a token that they have made, for a token carries the
-- `sub` of its maker. Only ids that an issuer gave; a row may be there before the person comes.
create table frozen_people (
  org_id text not null references orgs (id),
  sub text not null,
  frozen_at timestamptz not null default now(),
  primary key (org_id, sub)
);

-- Tells every gateway at once, as migration 0003 does for the other rights.
create function tell_frozen_person() returns trigger language plpgsql as $$
begin
  perform pg_notify('sallyport', 'person ' || new.org_id || ' ' || new.sub);
  return null;
end
$$;
create trigger people_frozen after insert on frozen_people for each row execute function tell_frozen_person();
