//! Size of `SigLIP`'s image towers, which are timm's: no class token, biases in the patch embedding, and attention of
//! one latent query with an MLP of its own in place of pooling.

use super::size::{TowerSize, blocks};

/// What the name of one of timm's towers says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tower {
    pub(super) patch: u64,
    pub(super) width: u64,
    pub(super) layers: u64,
    pub(super) heads: u64,
    pub(super) hidden: u64,
}

impl Tower {
    /// `vit_base_patch16_siglip_224` and its like (timm 1.0, `vision_transformer.py`).
    pub(super) fn named(name: &str) -> Option<Tower> {
        let (kind, rest) = name.strip_prefix("vit_")?.split_once("_patch")?;
        let (patch, side) = rest.split_once("_siglip_")?;
        let patch = patch.parse().ok().filter(|patch| [14, 16, 32].contains(patch))?;
        let known: u64 = side.parse().ok()?;
        let (width, layers, heads, hidden) = match kind {
            "base" => (768, 12, 12, 3072),
            "large" => (1024, 24, 16, 4096),
            // 3.7362 x 1152.
            "so400m" => (1152, 27, 16, 4304),
            "giantopt" => (1536, 40, 16, 6144),
            _ => return None,
        };
        (known > 0).then_some(Tower { patch, width, layers, heads, hidden })
    }

    /// Patches of an image; what is left at its border is cut.
    pub(super) fn patches(&self, side: u64) -> u64 {
        (side / self.patch).pow(2)
    }

    /// With n patches: parameters 3p^2 W + W + n W beside the blocks and their last LayerNorm, and of the pooling
    /// W + 4 (W^2 + W) + 2W + 2WH + H + W; MACs 3p^2 W n, and of the pooling 2W^2 + 2W^2 n + 2 n W + 2WH.
    pub(super) fn size(&self, side: u64) -> TowerSize {
        let Tower { patch, width: w, layers, hidden, .. } = *self;
        let n = self.patches(side);
        let mut size = blocks(layers, w, hidden, n, false);
        size.parameters += 3 * patch * patch * w + w + n * w + 2 * w;
        size.parameters += w + 4 * (w * w + w) + 2 * w + 2 * w * hidden + hidden + w;
        size.macs += 3 * patch * patch * w * n + 2 * w * w + 2 * w * w * n + 2 * n * w + 2 * w * hidden;
        size.norm_macs += 5 * n * w + 5 * w;
        size
    }
}
