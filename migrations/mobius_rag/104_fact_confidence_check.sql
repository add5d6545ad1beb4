-- A confidence is a probability. New rows must keep to it from now on; the old ones are looked at in 105, which needs no
-- more than a SHARE UPDATE EXCLUSIVE lock and lets writers go on.

ALTER TABLE extracted_facts
    ADD CONSTRAINT extracted_facts_confidence CHECK (confidence BETWEEN 0 AND 1) NOT VALID;

-- migrate:down
ALTER TABLE extracted_facts DROP CONSTRAINT extracted_facts_confidence;
