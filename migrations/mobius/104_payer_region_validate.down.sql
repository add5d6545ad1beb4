ALTER TABLE payer
    DROP CONSTRAINT payer_region,
    ADD CONSTRAINT payer_region CHECK (region ~ '^[A-Z]{2}$') NOT VALID;
