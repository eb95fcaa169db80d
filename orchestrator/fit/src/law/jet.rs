//! Numbers that carry their derivatives by theta: forward differentiation, exact, for laws that are not sums of
//! exponentials. A law is written once, as in its paper, and gives value, gradient and curvature.

use std::ops::{Add, Mul, Neg, Sub};

use super::softplus;

/// A number and its derivatives by K parameters. `S` is `K * K` with second derivatives (row-major), 0 without.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jet<const K: usize, const S: usize> {
    pub(super) value: f64,
    slope: [f64; K],
    bend: [f64; S],
}

/// The parameters as jets; those that `theta` lacks are constants.
pub(super) fn parameters<const K: usize, const S: usize>(theta: &[f64]) -> [Jet<K, S>; K] {
    std::array::from_fn(|index| {
        let mut jet = Jet::constant(theta.get(index).copied().unwrap_or(0.0));
        jet.slope[index] = 1.0;
        jet
    })
}

impl<const K: usize, const S: usize> Jet<K, S> {
    /// A number that no parameter moves.
    pub(super) fn constant(value: f64) -> Jet<K, S> {
        Jet { value, slope: [0.0; K], bend: [0.0; S] }
    }

    /// f of it: f, f' and f'' there.
    pub(super) fn chain(self, f: f64, f1: f64, f2: f64) -> Jet<K, S> {
        let mut jet = Jet { value: f, slope: self.slope.map(|slope| f1 * slope), bend: [0.0; S] };
        for (index, bend) in jet.bend.iter_mut().enumerate() {
            *bend = f1 * self.bend[index] + f2 * self.slope[index / K] * self.slope[index % K];
        }
        jet
    }

    pub(super) fn exp(self) -> Jet<K, S> {
        let f = self.value.exp();
        self.chain(f, f, f)
    }

    /// `ln(1 + e^z)`.
    pub(super) fn softplus(self) -> Jet<K, S> {
        let rise = (-softplus(-self.value)).exp();
        self.chain(softplus(self.value), rise, rise * (-softplus(self.value)).exp())
    }

    /// `ln(e^self + e^other)`.
    pub(super) fn log_add(self, other: Jet<K, S>) -> Jet<K, S> {
        if self.value >= other.value { self + (other - self).softplus() } else { other + (self - other).softplus() }
    }

    /// The value, and the gradient into `gradient`.
    pub(super) fn give(&self, gradient: &mut [f64]) -> f64 {
        for (slope, own) in gradient.iter_mut().zip(self.slope) {
            *slope = own;
        }
        self.value
    }

    /// Adds `weight` times the second derivatives by the first parameters to their matrix.
    pub(super) fn add_bend(&self, parameters: usize, weight: f64, hessian: &mut [f64]) {
        for i in 0..parameters {
            for j in 0..parameters {
                hessian[i * parameters + j] += weight * self.bend[i * K + j];
            }
        }
    }
}

impl<const K: usize, const S: usize> Add for Jet<K, S> {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.value += other.value;
        self.slope.iter_mut().zip(other.slope).for_each(|(own, other)| *own += other);
        self.bend.iter_mut().zip(other.bend).for_each(|(own, other)| *own += other);
        self
    }
}

impl<const K: usize, const S: usize> Add<f64> for Jet<K, S> {
    type Output = Self;

    fn add(self, number: f64) -> Self {
        Jet { value: self.value + number, ..self }
    }
}

impl<const K: usize, const S: usize> Neg for Jet<K, S> {
    type Output = Self;

    fn neg(self) -> Self {
        self * -1.0
    }
}

impl<const K: usize, const S: usize> Sub for Jet<K, S> {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl<const K: usize, const S: usize> Mul for Jet<K, S> {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let mut product = Jet::constant(self.value * other.value);
        for index in 0..K {
            product.slope[index] = self.slope[index] * other.value + self.value * other.slope[index];
        }
        for (index, bend) in product.bend.iter_mut().enumerate() {
            let (i, j) = (index / K, index % K);
            *bend = self.bend[index] * other.value
                + self.value * other.bend[index]
                + self.slope[i] * other.slope[j]
                + self.slope[j] * other.slope[i];
        }
        product
    }
}

impl<const K: usize, const S: usize> Mul<f64> for Jet<K, S> {
    type Output = Self;

    fn mul(self, number: f64) -> Self {
        self.chain(self.value * number, number, 0.0)
    }
}
