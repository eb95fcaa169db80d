//! YAML to [`Spec`]. Pure.
