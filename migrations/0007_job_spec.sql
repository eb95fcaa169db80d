-- Specs in a table of their own. A spec never changes and takes four times the room of all else of a job: inside the row it
-- was written again with every change of the job's state, and read with every count. (PostgreSQL moves only rows of more than
-- 2 kB out of line, whatever toast_tuple_target says.)

CREATE TABLE job_spec (
    job_id bigint PRIMARY KEY REFERENCES job ON DELETE CASCADE,
    spec   jsonb NOT NULL
);
COMMENT ON TABLE job_spec IS 'What to train, for each job: protocol::JobSpec, all that was hashed into job_key, and the paths of the data.';
INSERT INTO job_spec SELECT job_id, spec FROM job;

-- Unused from now on; kept for one release, since workers that were started before may still read it.
ALTER TABLE job ALTER COLUMN spec DROP NOT NULL;
COMMENT ON COLUMN job.spec IS 'Of jobs of older versions: see job_spec.';
ALTER TABLE job RESET (toast_tuple_target);
