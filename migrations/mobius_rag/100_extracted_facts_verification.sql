-- Facts get a verdict. Until now "a person looked at it" was read out of is_pertinent and reviewed_at; from here on the
-- status says it, and chat shows it beside the answer. Both old columns stay until their readers are gone.

CREATE TYPE fact_verification AS ENUM ('unverified', 'verified', 'rejected');

ALTER TABLE extracted_facts
    ADD COLUMN verification_status fact_verification NOT NULL DEFAULT 'unverified',
    ADD COLUMN verified_at timestamp,
    ADD COLUMN verified_by text;

UPDATE extracted_facts
   SET verification_status = CASE WHEN is_pertinent THEN 'verified' ELSE 'rejected' END::fact_verification,
       verified_at = reviewed_at,
       verified_by = reviewed_by
 WHERE reviewed_at IS NOT NULL
   AND is_pertinent IS NOT NULL;

COMMENT ON COLUMN extracted_facts.verification_status IS 'The latest verdict in fact_verdicts, or what the review before it said.';

-- migrate:down
ALTER TABLE extracted_facts
    DROP COLUMN verified_by,
    DROP COLUMN verified_at,
    DROP COLUMN verification_status;
DROP TYPE fact_verification;
