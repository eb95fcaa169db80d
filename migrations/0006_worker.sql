-- What workers need to be sure of: whose claim it is, and which spools are done with.

ALTER TABLE attempt
    ADD COLUMN claim_nonce  text,
    ADD COLUMN spool_closed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN attempt.claim_nonce IS 'Random number of the process that claimed it: asking again after a lost answer gives that process its claim, and no other.';
COMMENT ON COLUMN attempt.spool_closed IS 'A later attempt has stored what was in its spool; what its worker writes there after that does not count.';
