-- Regions are the two letters of a state. The old rows are looked at after the lock is gone, in 104.

ALTER TABLE payer ADD CONSTRAINT payer_region CHECK (region ~ '^[A-Z]{2}$') NOT VALID;

-- migrate:down
ALTER TABLE payer DROP CONSTRAINT payer_region;
