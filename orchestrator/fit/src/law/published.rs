//! Published laws at full precision, to draw beside a fit. Rounding matters: at 5.88e23 FLOPs Hoffmann et al.'s law
//! calls for 59 tokens a parameter, with exponents rounded as printed for 93.

use super::{Axis, LawName};
use crate::observation::Convention;

/// A law with its parameters as published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// To ask for it.
    pub id: &'static str,
    /// Response, data and axes.
    pub what: &'static str,
    /// The form.
    pub law: LawName,
    /// Parameters in the form's order, natural scale.
    pub values: &'static [f64],
    /// How C is counted, in the law or (laws of N and D) in the paper.
    pub compute: Convention,
    /// Paper, and where in it or from what the digits are.
    pub source: &'static str,
}

/// All of them.
pub const PUBLISHED: &[Published] = &[
    Published {
        id: "cherti-imagenet",
        what: "ImageNet zero-shot top-1 error of OpenCLIP on LAION",
        law: LawName::Power(Axis::C),
        values: &[5.858_059_196_052_686, -0.111_388_491_412_766_79],
        compute: Convention::GmacsSamples,
        source: "Cherti et al. 2022 (arXiv 2212.07143), section 4.1; digits recomputed from its results, bins:5",
    },
    Published {
        id: "cherti-coco",
        what: "MS-COCO 1 - image retrieval recall@5 of OpenCLIP on LAION",
        law: LawName::Power(Axis::C),
        values: &[2.749_719_696_827_360_5, -0.079_434_413_087_554_47],
        compute: Convention::GmacsSamples,
        source: "Cherti et al. 2022 (arXiv 2212.07143), section 4.2; digits recomputed from its results, bins:5",
    },
    Published {
        id: "cherti-openai-imagenet",
        what: "ImageNet zero-shot top-1 error of OpenAI's CLIP on WIT",
        law: LawName::Power(Axis::C),
        values: &[23.183_550_562_569_7, -0.163_774_690_464_292_24],
        compute: Convention::GmacsSamples,
        source: "Cherti et al. 2022 (arXiv 2212.07143), section 4.1; digits recomputed from the study's three points",
    },
    Published {
        id: "cherti-openai-coco",
        what: "MS-COCO 1 - image retrieval recall@5 of OpenAI's CLIP on WIT",
        law: LawName::Power(Axis::C),
        values: &[1.588_604_569_146_430_1, -0.050_759_373_786_588_485],
        compute: Convention::GmacsSamples,
        source: "Cherti et al. 2022 (arXiv 2212.07143), section 4.2; digits recomputed from the study's three points",
    },
    Published {
        id: "hoffmann",
        what: "loss of Chinchilla's language models, N parameters, D tokens",
        law: LawName::Chinchilla,
        // e^6.0073404, e^6.0179186, e^0.5267228.
        values: &[406.401_017_519_473_7, 410.722_826_945_039_8, 1.693_373_680_998_952_8, 0.339_170_84, 0.284_908_3],
        compute: Convention::SixNd,
        source: "Hoffmann et al. 2022 (arXiv 2203.15556), section D.3, equation 10; digits of its TeX source, quoted \
                 by Besiroglu et al. 2024 (arXiv 2404.10102)",
    },
    Published {
        id: "besiroglu",
        what: "the same models' loss, read off Hoffmann et al.'s figure 4",
        law: LawName::Chinchilla,
        values: &[482.005_72, 2_085.434_2, 1.816_86, 0.347_81, 0.365_85],
        compute: Convention::SixNd,
        source: "Besiroglu et al. 2024 (arXiv 2404.10102), section 3; digits of the notebook (least deviations)",
    },
    Published {
        id: "muennighoff",
        what: "loss of language models on C4 seen again and again, N parameters, D tokens, U unique tokens",
        law: LawName::Repeated,
        // e^6.255414, e^7.3049974, e^0.6254804.
        values: &[
            520.824_951_659_918_7,
            1_487.716_093_782_861,
            1.869_143_678_405_485_8,
            0.352_659_6,
            0.352_659_6,
            15.387_756,
            5.309_743,
        ],
        compute: Convention::SixNd,
        source: "Muennighoff et al. 2023 (arXiv 2305.16264), appendix A; RD and RN are a local optimum, a lower one lies \
                 far away: they are not identified by the paper's own runs",
    },
];

/// By id.
pub fn published(id: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|law| law.id == id)
}

#[cfg(test)]
mod tests {
    use super::super::{Input, internal};
    use super::*;

    fn value(id: &str, x: &Input) -> f64 {
        let published = published(id).unwrap();
        let law = published.law.law(1.0);
        law.ln_at(&internal(law.as_ref(), published.values), x).exp()
    }

    #[test]
    fn each_has_the_parameters_of_its_law() {
        for (index, published) in PUBLISHED.iter().enumerate() {
            let law = published.law.law(1.0);
            assert_eq!(published.values.len(), law.parameters().len(), "{}", published.id);
            assert!(internal(law.as_ref(), published.values).iter().all(|value| value.is_finite()), "{}", published.id);
            assert!(PUBLISHED[..index].iter().all(|other| other.id != published.id), "{}", published.id);
        }
        assert!(published("kaplan").is_none());
    }

    /// ViT-G/14 on 68 billion samples: 81.92 % and 76.99 % (Cherti et al., sections 4.1 and 4.2).
    #[test]
    fn the_studys_forecasts_come_out() {
        let x = Input::on(Axis::C, 532.92 * 2.0 * 84.0 * 407_332_084.0);
        assert!((1.0 - value("cherti-imagenet", &x) - 0.8192).abs() < 6e-5, "{}", value("cherti-imagenet", &x));
        assert!((1.0 - value("cherti-coco", &x) - 0.7699).abs() < 6e-5, "{}", value("cherti-coco", &x));
    }

    /// The digits are those that the papers print, rounded.
    #[test]
    fn logarithms_are_those_in_the_papers() {
        for (id, logarithms) in [
            ("hoffmann", [6.007_340_4, 6.017_918_6, 0.526_722_8]),
            ("muennighoff", [6.255_414, 7.304_997_4, 0.625_480_4]),
        ] {
            for (value, logarithm) in published(id).unwrap().values.iter().zip(logarithms) {
                assert!((value.ln() - logarithm).abs() < 1e-12, "{id}: {value}");
            }
        }
    }

    /// `(D/N)` of least loss on 6ND = C.
    fn tokens_per_parameter(id: &str, flops: f64) -> f64 {
        let [a, b, _, alpha, beta] = published(id).unwrap().values else { panic!("five parameters") };
        let model = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta)) * (flops / 6.0).powf(beta / (alpha + beta));
        flops / 6.0 / (model * model)
    }

    #[test]
    fn tokens_per_parameter_are_the_published_ones() {
        assert!((tokens_per_parameter("hoffmann", 5.88e23) - 59.03).abs() < 0.01);
        assert!((tokens_per_parameter("besiroglu", 5.88e23) - 18.3).abs() < 0.05);
    }

    /// Seeing samples once is the base law; four times is nearly as good as new ones, forty times is not.
    #[test]
    fn repeats_wear_out_as_muennighoff_et_al_say() {
        let at = |d: f64, u: f64| value("muennighoff", &Input::on(Axis::N, 1e9).with(Axis::D, d).with(Axis::U, u));
        let (four, fresh_four) = (at(100e9, 25e9), at(100e9, 100e9));
        let (forty, fresh_forty) = (at(1000e9, 25e9), at(1000e9, 1000e9));
        assert!((four - fresh_four) / fresh_four < 0.01, "{four} {fresh_four}");
        assert!((forty - fresh_forty) > 3.0 * (four - fresh_four));
    }
}
