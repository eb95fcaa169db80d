-- By which solver a fit was made.

ALTER TABLE fit ADD COLUMN solver text NOT NULL DEFAULT 'newton';
COMMENT ON COLUMN fit.solver IS 'What searched for its minima: newton, lbfgs or trust-region.';
COMMENT ON COLUMN fit.options IS 'Everything that was asked for: law, objective, points, held parameters, resampling, starts, seed, solver.';
