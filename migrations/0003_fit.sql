-- Fits of any law: what they were asked, how the minimum was found, and their covariance.

ALTER TABLE fit
    ADD COLUMN identity    text,
    ADD COLUMN law_name    text NOT NULL DEFAULT 'power',
    ADD COLUMN objective   text NOT NULL DEFAULT 'ls-log',
    ADD COLUMN condition   text NOT NULL DEFAULT '',
    ADD COLUMN options     jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN covariance  jsonb,
    ADD COLUMN detail      jsonb NOT NULL DEFAULT '{}';
DROP INDEX fit_identity;
UPDATE fit SET identity = 'before 0003: ' || fit_id;
ALTER TABLE fit ALTER COLUMN identity SET NOT NULL;
CREATE UNIQUE INDEX fit_identity ON fit (identity);

COMMENT ON COLUMN fit.identity IS 'sha256 of sweep, metric, condition, options, code version and input hash: the same fit again is the same row.';
COMMENT ON COLUMN fit.law IS 'The formula, for example E = beta * C^alpha.';
COMMENT ON COLUMN fit.law_name IS 'The law as on the command line: power, chinchilla, additive, ...';
COMMENT ON COLUMN fit.objective IS 'What was minimised: ls-log, ls, huber:DELTA, lad, ...';
COMMENT ON COLUMN fit.condition IS 'SQL condition on the view observation that rows were chosen by; empty: all.';
COMMENT ON COLUMN fit.options IS 'Everything that was asked for: law, objective, points, held parameters, resampling, starts, seed.';
COMMENT ON COLUMN fit.parameters IS 'Name to value and 95 % interval, full precision, natural scale.';
COMMENT ON COLUMN fit.covariance IS 'Of the internal parameters (coefficients by their logarithm), in the order of detail.theta; null where it is singular.';
COMMENT ON COLUMN fit.detail IS 'theta (internal), objective value, gradient norm, starts, hit rate, optima, condition number, cautions, resamples.';
