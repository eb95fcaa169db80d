//! HTML and SVG.
