//! The model configurations that come with `sweep`.

/// Name and JSON text of the ViT family of OpenCLIP (`model_configs`, version 3.3.0) and of our ladder for two CPU
/// cores, smallest family first.
pub const SHIPPED_MODELS: &[(&str, &str)] = &[
    ("cpu-w32-l2", include_str!("../models/cpu-w32-l2.json")),
    ("cpu-w64-l3", include_str!("../models/cpu-w64-l3.json")),
    ("cpu-w96-l4", include_str!("../models/cpu-w96-l4.json")),
    ("cpu-w128-l4", include_str!("../models/cpu-w128-l4.json")),
    ("cpu-w192-l6", include_str!("../models/cpu-w192-l6.json")),
    ("ViT-S-32", include_str!("../models/ViT-S-32.json")),
    ("ViT-S-32-alt", include_str!("../models/ViT-S-32-alt.json")),
    ("ViT-S-16", include_str!("../models/ViT-S-16.json")),
    ("ViT-S-16-alt", include_str!("../models/ViT-S-16-alt.json")),
    ("ViT-M-32", include_str!("../models/ViT-M-32.json")),
    ("ViT-M-32-alt", include_str!("../models/ViT-M-32-alt.json")),
    ("ViT-M-16", include_str!("../models/ViT-M-16.json")),
    ("ViT-M-16-alt", include_str!("../models/ViT-M-16-alt.json")),
    ("ViT-B-32", include_str!("../models/ViT-B-32.json")),
    ("ViT-B-32-256", include_str!("../models/ViT-B-32-256.json")),
    ("ViT-B-32-quickgelu", include_str!("../models/ViT-B-32-quickgelu.json")),
    ("ViT-B-32-plus-256", include_str!("../models/ViT-B-32-plus-256.json")),
    ("ViT-B-16", include_str!("../models/ViT-B-16.json")),
    ("ViT-B-16-plus", include_str!("../models/ViT-B-16-plus.json")),
    ("ViT-B-16-quickgelu", include_str!("../models/ViT-B-16-quickgelu.json")),
    ("ViT-B-16-plus-240", include_str!("../models/ViT-B-16-plus-240.json")),
    ("ViT-L-16", include_str!("../models/ViT-L-16.json")),
    ("ViT-L-16-320", include_str!("../models/ViT-L-16-320.json")),
    ("ViT-L-14", include_str!("../models/ViT-L-14.json")),
    ("ViT-L-14-280", include_str!("../models/ViT-L-14-280.json")),
    ("ViT-L-14-336", include_str!("../models/ViT-L-14-336.json")),
    ("ViT-L-14-quickgelu", include_str!("../models/ViT-L-14-quickgelu.json")),
    ("ViT-L-14-336-quickgelu", include_str!("../models/ViT-L-14-336-quickgelu.json")),
    ("ViT-H-16", include_str!("../models/ViT-H-16.json")),
    ("ViT-H-14", include_str!("../models/ViT-H-14.json")),
    ("ViT-H-14-378", include_str!("../models/ViT-H-14-378.json")),
    ("ViT-H-14-quickgelu", include_str!("../models/ViT-H-14-quickgelu.json")),
    ("ViT-H-14-378-quickgelu", include_str!("../models/ViT-H-14-378-quickgelu.json")),
    ("ViT-g-14", include_str!("../models/ViT-g-14.json")),
    ("ViT-bigG-14", include_str!("../models/ViT-bigG-14.json")),
    ("ViT-bigG-14-quickgelu", include_str!("../models/ViT-bigG-14-quickgelu.json")),
    ("ViT-e-14", include_str!("../models/ViT-e-14.json")),
];

/// Other names of shipped models: the 2022 study calls `ViT-bigG-14` so.
pub const MODEL_ALIASES: &[(&str, &str)] = &[("ViT-G-14", "ViT-bigG-14")];

/// Name and JSON of a shipped model, aliases resolved.
pub fn shipped_model(name: &str) -> Option<(&'static str, &'static str)> {
    let name = MODEL_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    SHIPPED_MODELS.iter().find(|(shipped, _)| *shipped == name).copied()
}
