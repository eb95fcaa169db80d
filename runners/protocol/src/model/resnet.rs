//! Size of OpenCLIP's `ModifiedResNet`: three convolutions in the stem, bottlenecks of which the first of a stage has a
//! projected shortcut, attention in place of the last pooling. Strides are average pools before a convolution.

use super::VisionConfig;
use super::size::TowerSize;

/// What a stage's width is multiplied with at its end.
const EXPANSION: u64 = 4;

/// With C channels in and D out, a k x k convolution has k^2 C D parameters and as many MACs at each place of its
/// output; BatchNorm after each has 2 D parameters and 2 fvcore MACs an element (as evaluated). Pooling over
/// T = (S/32)^2 + 1 tokens of C = 32 W channels has T C + 3 (C^2 + C) + C E + E parameters, and
/// T (3 C^2 + C E) + 2 T^2 C MACs, since OpenCLIP computes all of its queries.
pub(super) fn size(vision: &VisionConfig, stages: [u64; 4], embed: u64) -> TowerSize {
    let (side, w) = (vision.image_size, vision.width);
    let mut size = TowerSize::default();
    let mut convolution = |kernel: u64, channels: u64, out: u64, side: u64| {
        let weights = kernel * kernel * channels * out;
        size.parameters += weights + 2 * out;
        size.macs += weights * side * side;
        size.norm_macs += 2 * out * side * side;
    };
    convolution(3, 3, w / 2, side / 2);
    convolution(3, w / 2, w / 2, side / 2);
    convolution(3, w / 2, w, side / 2);
    let (mut channels, mut places) = (w, side / 4);
    for (stage, blocks) in stages.into_iter().enumerate() {
        let planes = w << stage;
        for block in 0..blocks {
            let out = if stage > 0 && block == 0 { places / 2 } else { places };
            convolution(1, channels, planes, places);
            convolution(3, planes, planes, places);
            convolution(1, planes, EXPANSION * planes, out);
            if block == 0 {
                convolution(1, channels, EXPANSION * planes, out);
            }
            (channels, places) = (EXPANSION * planes, out);
        }
    }
    let tokens = vision.patches() + 1;
    size.parameters += tokens * channels + 3 * (channels * channels + channels) + channels * embed + embed;
    size.macs += tokens * (3 * channels * channels + channels * embed) + 2 * tokens * tokens * channels;
    size
}
