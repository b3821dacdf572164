//! The optimiser of a long vector of parameters, cut into pieces that threads or ranks step apart.

use super::{Optimizer, Real, Tensor, add_squares, array};
use crate::error::Result;
use crate::exact::ExactSum;
use rayon::prelude::*;
use std::ops::Range;

/// Parameters of a piece at most, if tensors may be cut: a multiple of [`RUN`](super::RUN), and little enough for a core's cache.
const MOST: usize = 65_536;

/// The pieces of these tensors, in order; none is empty. Not collective.
///
/// `whole_tensors`: none is cut, which [`Lamb`](super::Lamb) and [`Lars`](super::Lars) need. Else pieces are runs of 65,536 parameters and what is left
/// of a tensor. Either way they depend on the tensors alone.
pub fn cut(tensors: &[Tensor], whole_tensors: bool) -> Vec<Tensor> {
    let mut pieces = Vec::new();
    for tensor in tensors {
        let mut left = tensor.len;
        while left > 0 {
            let len = if whole_tensors { left } else { left.min(MOST) };
            pieces.push(Tensor { len, ..*tensor });
            left -= len;
        }
    }
    pieces
}

/// An [`Optimizer`] for each of the pieces that are owned: all of them, or a rank's share.
///
/// Steps are those of one optimiser of everything, bit for bit, whoever owns which piece.
pub struct Pieces<F: Real = f64> {
    /// The places of all pieces.
    ranges: Vec<Range<usize>>,
    owned: Range<usize>,
    /// Of those owned.
    optimizers: Vec<Box<dyn Optimizer<F>>>,
}

impl<F: Real> Pieces<F> {
    /// Owns all pieces of [`cut`]. `make`: the optimiser of parameters of these tensors. Not collective.
    pub fn new(
        tensors: &[Tensor],
        whole_tensors: bool,
        make: impl Fn(&[Tensor]) -> Box<dyn Optimizer<F>>,
    ) -> Pieces<F> {
        let all = 0..cut(tensors, whole_tensors).len();
        Pieces::share(tensors, whole_tensors, all, make)
    }

    /// Owns the pieces `owned` of [`cut`], maybe none; remembers nothing of the others. Not collective.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn share(
        tensors: &[Tensor],
        whole_tensors: bool,
        owned: Range<usize>,
        make: impl Fn(&[Tensor]) -> Box<dyn Optimizer<F>>,
    ) -> Pieces<F> {
        let pieces = cut(tensors, whole_tensors);
        let optimizers = pieces[owned.clone()].iter().map(|piece| make(std::slice::from_ref(piece))).collect();
        let mut end = 0;
        let place_of = |piece: &Tensor| {
            end += piece.len;
            end - piece.len..end
        };
        Pieces { ranges: pieces.iter().map(place_of).collect(), owned, optimizers }
    }

    /// The places of all pieces among the parameters, owned or not.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// The numbers of the pieces owned.
    pub fn owned(&self) -> Range<usize> {
        self.owned.clone()
    }

    /// The place of several pieces, which follow each other, among the parameters.
    pub fn place(&self, pieces: Range<usize>) -> Range<usize> {
        match self.ranges[pieces].as_ref() {
            [] => 0..0,
            several => several[0].start..several[several.len() - 1].end,
        }
    }

    /// One step of all pieces owned. Not collective, on all threads; does not allocate. `grad`, `params`: of these pieces.
    ///
    /// # Panics
    /// If a length is not theirs.
    pub fn step(&mut self, learning_rate: f64, grad: &[F], params: &mut [F]) {
        self.step_of(self.owned(), learning_rate, grad, params);
    }

    /// One step of some of the pieces owned, as soon as their gradient is known; every piece must be stepped once a step. Not collective, on all threads;
    /// does not allocate. `grad`, `params`: of these pieces.
    ///
    /// # Panics
    /// If a length is not theirs, or one is not owned.
    pub fn step_of(&mut self, pieces: Range<usize>, learning_rate: f64, grad: &[F], params: &mut [F]) {
        let n = self.place(pieces.clone()).len();
        assert_eq!((grad.len(), params.len()), (n, n), "one number a parameter of pieces {pieces:?}");
        let (owned, wanted) = (&self.owned, &pieces);
        assert!(owned.start <= wanted.start && wanted.end <= owned.end, "pieces {wanted:?} of {owned:?}");
        let places = pieces.start - owned.start..pieces.end - owned.start;
        step_all(&mut self.optimizers[places], &self.ranges[pieces], learning_rate, grad, params);
    }

    /// One step of all pieces owned, whose gradients are made one after the other, each stepped while it is in cache: `make` fills the gradient of the
    /// parameters of these numbers. Not collective, on all threads; does not allocate. `grad`, `params`: of these pieces.
    ///
    /// # Panics
    /// If a length is not theirs.
    pub fn step_made(
        &mut self,
        learning_rate: f64,
        grad: &mut [F],
        params: &mut [F],
        make: &(impl Fn(Range<usize>, &mut [F]) + Sync),
    ) {
        let n = self.place(self.owned()).len();
        assert_eq!((grad.len(), params.len()), (n, n), "one number a parameter of the pieces owned");
        make_and_step(&mut self.optimizers, &self.ranges[self.owned.clone()], learning_rate, grad, params, make);
    }

    /// Σ grad² of some pieces, owned or not; the sums of all pieces, merged in any order, are that of the whole gradient. Not collective, on all threads.
    ///
    /// `grad`: of these pieces. See [`length`](super::length) and [`shorten`](super::shorten).
    ///
    /// # Panics
    /// If its length is not theirs.
    pub fn squares(&self, pieces: Range<usize>, grad: &[F]) -> ExactSum {
        let place = self.place(pieces.clone());
        assert_eq!(grad.len(), place.len(), "one number a parameter of pieces {pieces:?}");
        let of_piece = |range: &Range<usize>| {
            let mut sum = ExactSum::new();
            add_squares(&grad[range.start - place.start..range.end - place.start], &mut sum);
            sum
        };
        match &self.ranges[pieces] {
            [one] => of_piece(one),
            several => several.par_iter().map(of_piece).reduce(ExactSum::new, |mut sum, other| {
                sum.merge(&other);
                sum
            }),
        }
    }

    /// What a checkpoint must hold of the pieces owned to go on with the same bits: named arrays, each of all these pieces in order. Not collective.
    pub fn state(&self) -> Vec<(&'static str, Vec<F>)> {
        let mut arrays: Vec<(&'static str, Vec<F>)> = Vec::new();
        for optimizer in &self.optimizers {
            for (place, (name, values)) in optimizer.state().into_iter().enumerate() {
                if place == arrays.len() {
                    arrays.push((name, Vec::new()));
                }
                arrays[place].1.extend_from_slice(values);
            }
        }
        arrays
    }

    /// Takes up the arrays of [`state`](Self::state) for the same pieces. Not collective.
    ///
    /// # Errors
    /// Data: an array is absent or of another length. Then nothing has changed.
    pub fn restore(&mut self, state: &[(&str, &[F])]) -> Result<()> {
        let mut rest = Vec::new();
        for (name, values) in self.state() {
            rest.push((name, array(state, name, values.len())?));
        }
        for optimizer in &mut self.optimizers {
            for ((_, own), (_, rest)) in optimizer.state_mut().into_iter().zip(&mut rest) {
                let (values, after) = rest.split_at(own.len());
                own.copy_from_slice(values);
                *rest = after;
            }
        }
        Ok(())
    }
}

/// Halves the pieces until one is left: threads without work take halves of others.
fn step_all<F: Real>(
    optimizers: &mut [Box<dyn Optimizer<F>>],
    ranges: &[Range<usize>],
    learning_rate: f64,
    grad: &[F],
    params: &mut [F],
) {
    match optimizers {
        [] => {}
        [one] => one.step(learning_rate, grad, params),
        several => {
            let middle = several.len() / 2;
            let n_first = ranges[middle].start - ranges[0].start;
            let (first, second) = several.split_at_mut(middle);
            let (of_first, of_second) = ranges.split_at(middle);
            let ((first_grad, second_grad), (first_params, second_params)) =
                (grad.split_at(n_first), params.split_at_mut(n_first));
            rayon::join(
                || step_all(first, of_first, learning_rate, first_grad, first_params),
                || step_all(second, of_second, learning_rate, second_grad, second_params),
            );
        }
    }
}

/// The same with gradients that are made first.
fn make_and_step<F: Real>(
    optimizers: &mut [Box<dyn Optimizer<F>>],
    ranges: &[Range<usize>],
    learning_rate: f64,
    grad: &mut [F],
    params: &mut [F],
    make: &(impl Fn(Range<usize>, &mut [F]) + Sync),
) {
    match optimizers {
        [] => {}
        [one] => {
            make(ranges[0].clone(), grad);
            one.step(learning_rate, grad, params);
        }
        several => {
            let middle = several.len() / 2;
            let n_first = ranges[middle].start - ranges[0].start;
            let (first, second) = several.split_at_mut(middle);
            let (of_first, of_second) = ranges.split_at(middle);
            let ((first_grad, second_grad), (first_params, second_params)) =
                (grad.split_at_mut(n_first), params.split_at_mut(n_first));
            rayon::join(
                || make_and_step(first, of_first, learning_rate, first_grad, first_params, make),
                || make_and_step(second, of_second, learning_rate, second_grad, second_params, make),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Adagrad, Adam, Lamb, Lars, Sgd, length};
    use super::*;

    const TENSORS: [Tensor; 6] = [
        Tensor::new(2 * MOST + 4099),
        Tensor::free(13),
        Tensor::new(0),
        Tensor::new(MOST),
        Tensor::free(1),
        Tensor::new(8_191),
    ];
    type Make<F> = fn(&[Tensor]) -> Box<dyn Optimizer<F>>;

    fn n_params(tensors: &[Tensor]) -> usize {
        tensors.iter().map(|tensor| tensor.len).sum()
    }

    fn makers<F: Real>() -> [(bool, Make<F>); 6] {
        [
            (false, |tensors| Box::new(Sgd::new(n_params(tensors), 0.9, true))),
            (false, |tensors| Box::new(Adam::new(n_params(tensors), [0.9, 0.999], 1e-8))),
            (false, |tensors| Box::new(Adam::new(n_params(tensors), [0.9, 0.999], 1e-8).with_decay(0.1, tensors))),
            (false, |tensors| Box::new(Adagrad::new(n_params(tensors), 1e-10))),
            (true, |tensors| Box::new(Lamb::new(tensors, [0.9, 0.999], 1e-6, 0.01, 1.0, 0.0))),
            (true, |tensors| Box::new(Lars::new(tensors, 0.9, 0.01, 0.0, 1.0))),
        ]
    }

    fn values<F: Real>(seed: usize, n: usize) -> Vec<F> {
        (0..n).map(|i| F::from_f64(libm::sin((i % 977 * (seed + 3) + i / 977) as f64))).collect()
    }

    fn equals_one_optimiser<F: Real>() {
        let n = n_params(&TENSORS);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (place, (whole_tensors, make)) in makers::<F>().into_iter().enumerate() {
            let mut one = make(&TENSORS);
            let mut pieces = Pieces::new(&TENSORS, whole_tensors, make);
            let middle = pieces.ranges().len() / 2;
            let mut shares: Vec<Pieces<F>> = [0..1, 1..middle, middle..middle, middle..pieces.ranges().len()]
                .into_iter()
                .map(|owned| Pieces::share(&TENSORS, whole_tensors, owned, make))
                .collect();
            let start: Vec<F> = values(7, n);
            let (mut params, mut of_pieces, mut of_shares) = (start.clone(), start.clone(), start);
            for step in 0..3 {
                let grad: Vec<F> = values(step, n);
                one.step(0.1, &grad, &mut params);
                pool.install(|| pieces.step(0.1, &grad, &mut of_pieces));
                for share in shares.iter_mut().rev() {
                    let range = share.place(share.owned());
                    share.step(0.1, &grad[range.clone()], &mut of_shares[range]);
                }
                assert!(of_pieces == params, "optimiser {place}, step {step}");
                assert!(of_shares == params, "optimiser {place}, step {step}, shared");
            }
            for (at, (name, whole)) in pieces.state().into_iter().enumerate() {
                let parts: Vec<F> = shares
                    .iter()
                    .filter_map(|share| share.state().get(at).cloned())
                    .flat_map(|(_, part)| part)
                    .collect();
                assert!(parts == whole, "optimiser {place}, '{name}'");
            }
        }
    }

    #[test]
    fn pieces_have_the_bits_of_one_optimiser_of_all_parameters() {
        equals_one_optimiser::<f64>();
        equals_one_optimiser::<f32>();
    }

    #[test]
    fn pieces_end_where_tensors_do() {
        let pieces: Pieces<f32> = Pieces::new(&TENSORS, false, makers()[0].1);
        let ends: Vec<usize> = pieces.ranges().iter().map(|range| range.end).collect();
        let third = 2 * MOST + 4099;
        assert_eq!(ends, [MOST, 2 * MOST, third, third + 13, third + 13 + MOST, third + 14 + MOST, n_params(&TENSORS)]);
        let free: Vec<bool> = cut(&TENSORS, true).iter().map(|piece| piece.is_free).collect();
        assert_eq!(free, [false, true, false, true, false]);
        assert_eq!((pieces.place(2..5), pieces.place(4..4)), (2 * MOST..third + 13 + MOST, 0..0));
    }

    #[test]
    fn restored_pieces_continue_with_the_same_bits_and_refuse_what_does_not_fit() {
        let n = n_params(&TENSORS);
        for (whole_tensors, make) in makers::<f32>() {
            let mut pieces = Pieces::new(&TENSORS, whole_tensors, make);
            let mut params: Vec<f32> = values(1, n);
            pieces.step(0.1, &values(2, n), &mut params);
            let mut copy = params.clone();
            let state = pieces.state();
            let mut arrays: Vec<(&str, &[f32])> = state.iter().map(|(name, values)| (*name, &values[..])).collect();
            let mut again = Pieces::new(&TENSORS, whole_tensors, make);
            again.restore(&arrays).unwrap();
            // Piece after piece, from the last: as buckets of a backward pass arrive.
            pieces.step(0.1, &values(3, n), &mut params);
            let grad: Vec<f32> = values(3, n);
            for piece in again.owned().rev() {
                let place = again.ranges()[piece].clone();
                again.step_of(piece..piece + 1, 0.1, &grad[place.clone()], &mut copy[place]);
            }
            assert!(params == copy);
            let last = arrays.len() - 1;
            arrays[last].1 = &arrays[last].1[1..];
            let before = again.state();
            assert!(again.restore(&arrays).is_err());
            assert!(again.restore(&arrays[..last]).is_err());
            assert!(again.state() == before);
        }
    }

    #[test]
    fn squares_do_not_depend_on_who_has_which_pieces() {
        let n = n_params(&TENSORS);
        let grad: Vec<f32> = values(5, n);
        for whole_tensors in [false, true] {
            let pieces: Pieces<f32> = Pieces::new(&TENSORS, whole_tensors, makers()[0].1);
            let whole = pieces.squares(pieces.owned(), &grad);
            let plain = libm::sqrt(grad.iter().map(|g| f64::from(*g) * f64::from(*g)).sum());
            approx::assert_relative_eq!(length(&whole), plain, max_relative = 1e-12);
            let mut parts = ExactSum::new();
            for middle in [0..0, 3..pieces.owned().end, 1..3, 0..1] {
                parts.merge(&pieces.squares(middle.clone(), &grad[pieces.place(middle)]));
            }
            assert_eq!(parts, whole);
            // Whether pieces are whole tensors leaves no trace either.
            let other: Pieces<f32> = Pieces::new(&TENSORS, !whole_tensors, makers()[0].1);
            assert_eq!(other.squares(other.owned(), &grad), whole);
        }
    }
}
