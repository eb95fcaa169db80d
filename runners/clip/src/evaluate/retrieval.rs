//! Retrieval both ways, by two definitions: CLIP_benchmark's, where an image's own captions are right for it and no
//! others are, and one for data where many pairs share a caption, where equal captions stand for one another.

use std::collections::HashMap;

use protocol::Measurement;
use tch::Tensor;

use super::metrics::{self, Standing, standing};
use super::{CHUNK, to_vec};

/// Which texts belong to which images.
pub(super) struct Answers {
    /// Image of each text.
    image_of: Vec<usize>,
    /// For each text, a number shared by equal texts.
    number: Vec<usize>,
    /// The numbers of each image's texts, ascending.
    numbers_of: Vec<Vec<usize>>,
}

/// Right answers of one query among the candidates, by either definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Right {
    own: usize,
    equal: usize,
}

impl Answers {
    /// Position in `texts` of the first text of each number.
    pub(super) fn distinct(&self) -> Vec<usize> {
        let mut first = Vec::new();
        for (text, number) in self.number.iter().enumerate() {
            if *number == first.len() {
                first.push(text);
            }
        }
        first
    }

    /// For each image, the number of its first text.
    pub(super) fn first_numbers(&self) -> Vec<i64> {
        let mut first = vec![None; self.numbers_of.len()];
        for (image, number) in self.image_of.iter().zip(&self.number) {
            first[*image].get_or_insert(*number as i64);
        }
        first.into_iter().flatten().collect()
    }

    /// `texts[i]` belongs to image `image_of[i]` of `images`.
    pub(super) fn new(texts: &[&str], image_of: Vec<usize>, images: usize) -> Answers {
        let mut numbers = HashMap::new();
        let number: Vec<usize> = texts
            .iter()
            .map(|text| {
                let next = numbers.len();
                *numbers.entry(*text).or_insert(next)
            })
            .collect();
        let mut numbers_of = vec![Vec::new(); images];
        for (number, image) in number.iter().zip(&image_of) {
            numbers_of[*image].push(*number);
        }
        for of in &mut numbers_of {
            of.sort_unstable();
            of.dedup();
        }
        Answers { image_of, number, numbers_of }
    }

    fn is_own(&self, text: usize, image: usize) -> bool {
        self.image_of[text] == image
    }

    /// Whether the image has a caption equal to the text.
    fn is_equal(&self, text: usize, image: usize) -> bool {
        self.numbers_of[image].binary_search(&self.number[text]).is_ok()
    }

    /// Images that are right for each text.
    fn right_images(&self) -> Vec<Right> {
        let mut images = vec![0; self.number.len()];
        for number in self.numbers_of.iter().flatten() {
            images[*number] += 1;
        }
        self.number.iter().map(|number| Right { own: 1, equal: images[*number] }).collect()
    }

    /// Texts that are right for each image.
    fn right_texts(&self) -> Vec<Right> {
        let mut texts = vec![0; self.number.len()];
        for number in &self.number {
            texts[*number] += 1;
        }
        let mut own = vec![0; self.numbers_of.len()];
        for image in &self.image_of {
            own[*image] += 1;
        }
        let equal = self.numbers_of.iter().map(|of| of.iter().map(|number| texts[*number]).sum());
        own.into_iter().zip(equal).map(|(own, equal)| Right { own, equal }).collect()
    }
}

/// `image_retrieval_recall@k` (texts seek images) and `text_retrieval_recall@k`, then both by equal captions, from unit
/// embeddings of the distinct texts in order of their numbers (numbers, E) and of the images (images, E). Equal texts
/// are embedded once, so that rounding does not part them.
pub(super) fn measure(answers: &Answers, distinct: &Tensor, images: &Tensor) -> Vec<Measurement> {
    let (n_texts, n_images) = (answers.image_of.len(), answers.numbers_of.len());
    let mut texts_of = vec![Vec::new(); distinct.size()[0] as usize];
    for (text, number) in answers.number.iter().enumerate() {
        texts_of[*number].push(text);
    }
    let mut of_texts = (vec![Standing::default(); n_texts], vec![0; n_texts]);
    each_row(distinct, images, |number, scores| {
        for &text in &texts_of[number] {
            of_texts.0[text] = standing(scores, |image| answers.is_own(text, image));
            of_texts.1[text] = metrics::rank(scores, |image| answers.is_equal(text, image)).unwrap_or(n_images);
        }
    });
    let mut of_images = (vec![Standing::default(); n_images], vec![0; n_images]);
    each_row(images, distinct, |image, scores| {
        let scores: Vec<f32> = answers.number.iter().map(|number| scores[*number]).collect();
        of_images.0[image] = standing(&scores, |text| answers.is_own(text, image));
        of_images.1[image] = metrics::rank(&scores, |text| answers.is_equal(text, image)).unwrap_or(n_texts);
    });
    let (right_images, right_texts) = (answers.right_images(), answers.right_texts());
    let own = |right: &[Right]| right.iter().map(|right| right.own).collect::<Vec<_>>();
    let equal = |right: &[Right]| right.iter().map(|right| right.equal).collect::<Vec<_>>();
    [
        metrics::retrieval("image_retrieval_recall", &of_texts.0, &own(&right_images), n_images),
        metrics::retrieval("text_retrieval_recall", &of_images.0, &own(&right_texts), n_texts),
        metrics::retrieval("image_retrieval_recall_grouped", &of_texts.1, &equal(&right_images), n_images),
        metrics::retrieval("text_retrieval_recall_grouped", &of_images.1, &equal(&right_texts), n_texts),
    ]
    .concat()
}

/// Gives each query's number and its scores with all candidates.
fn each_row(queries: &Tensor, candidates: &Tensor, mut see: impl FnMut(usize, &[f32])) {
    let (n, width) = (queries.size()[0] as usize, candidates.size()[0] as usize);
    let candidates = candidates.tr();
    for start in (0..n).step_by(CHUNK) {
        let rows = CHUNK.min(n - start);
        let scores = to_vec(&queries.narrow(0, start as i64, rows as i64).matmul(&candidates));
        for (row, scores) in scores.chunks(width).enumerate() {
            see(start + row, scores);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(measured: &[Measurement], metric: &str) -> f64 {
        measured.iter().find(|m| m.metric == metric).unwrap_or_else(|| panic!("{metric}")).value
    }

    /// Images 0 and 1 share the caption `cat`; image 2 has two captions.
    fn answers() -> Answers {
        Answers::new(&["cat", "cat", "dog", "hound"], vec![0, 1, 2, 2], 3)
    }

    #[test]
    fn right_answers_are_counted_by_either_definition() {
        let right = |own, equal| Right { own, equal };
        assert_eq!(answers().right_images(), [right(1, 2), right(1, 2), right(1, 1), right(1, 1)]);
        assert_eq!(answers().right_texts(), [right(1, 2), right(1, 2), right(2, 2)]);
    }

    #[test]
    fn an_equal_caption_is_a_hit_for_the_grouped_definition_alone() {
        // Images by axis; `cat` points at image 1, `dog` at 2, `hound` at 0.
        let images = Tensor::from_slice(&[1_f32, 0., 0., 0., 1., 0., 0., 0., 1.]).view([3, 3]);
        let texts = Tensor::from_slice(&[0_f32, 1., 0., 0., 0., 1., 1., 0., 0.]).view([3, 3]);
        let measured = measure(&answers(), &texts, &images);
        // Texts: the first `cat` finds image 1 before its own; the last finds image 0.
        assert!((value(&measured, "image_retrieval_recall@1") - 0.5).abs() < 1e-12);
        assert!((value(&measured, "image_retrieval_recall_grouped@1") - 0.75).abs() < 1e-12);
        // Images: 0 finds `hound`; 1 finds two `cat` of equal score, one of them its own: a hit in half of all orders;
        // one of the two captions of image 2 is enough.
        assert!((value(&measured, "text_retrieval_recall@1") - 0.5).abs() < 1e-12);
        assert!((value(&measured, "text_retrieval_recall_grouped@1") - 2.0 / 3.0).abs() < 1e-12);
        let chance =
            |metric: &str| measured.iter().find(|m| m.metric == metric).and_then(|m| m.chance).unwrap_or_default();
        assert!((chance("image_retrieval_recall@1") - 1.0 / 3.0).abs() < 1e-12);
        assert!((chance("image_retrieval_recall_grouped@1") - 0.5).abs() < 1e-12);
        assert!((chance("text_retrieval_recall@1") - (0.25 + 0.25 + 0.5) / 3.0).abs() < 1e-12);
        assert!(measured.iter().all(|m| !m.metric.contains("@5")), "there are no five candidates");
    }
}
