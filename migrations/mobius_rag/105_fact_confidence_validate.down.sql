-- A constraint cannot be told that it is not valid any more: it is put up again as 104 did.
ALTER TABLE extracted_facts
    DROP CONSTRAINT extracted_facts_confidence,
    ADD CONSTRAINT extracted_facts_confidence CHECK (confidence BETWEEN 0 AND 1) NOT VALID;
