//! What the rows of a node are summed to, and how pure a node of such sums is: three kinds of it, all in integers.
//!
//! A *cell* is the sums of some rows as words. Cells are added word by word, wrapping, so that any order gives the same; the bounds that
//! make this safe are those of whoever made the rows. Source of the impurities: Breiman, Friedman, Olshen, Stone, *Classification
//! and regression trees*, 1984, chapters 4 and 8.

/// A row of a tree: where its bins are, and what it adds to a cell.
pub(super) trait Problem: Sync {
    type Item: Copy + Send + Sync;
    /// What an item adds, ready to be added to several cells.
    type Word: Copy;
    /// Bytes of an item that travels.
    const ITEM_BYTES: usize;

    /// Words of a cell.
    fn width(&self) -> usize;
    fn row(item: &Self::Item) -> usize;
    /// The same with its bins in another place.
    fn moved(item: &Self::Item, row: u32) -> Self::Item;
    fn word(item: &Self::Item) -> Self::Word;
    fn add_word(&self, cell: &mut [u64], word: Self::Word);

    #[inline]
    fn add(&self, cell: &mut [u64], item: &Self::Item) {
        self.add_word(cell, Self::word(item));
    }

    /// Rows, each as often as it was drawn.
    fn draws(&self, cell: &[u64]) -> u64;
    /// Σ weight times impurity; for numbers but for what is the same for all ways to split a node.
    fn impurity(&self, cell: &[u64]) -> f64;
    /// Σ weight times impurity of both sides of a split, and the other side's cell in `right`; None: a side has too few draws.
    #[inline]
    fn left_over(&self, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<[f64; 2]> {
        for ((right, total), left) in right.iter_mut().zip(total).zip(left) {
            *right = total.wrapping_sub(*left);
        }
        let is_enough = self.draws(left) >= least_draws && self.draws(right) >= least_draws;
        is_enough.then(|| [self.impurity(left), self.impurity(right)])
    }
    /// Nothing can be gained by splitting rows of these sums.
    fn is_pure(&self, cell: &[u64]) -> bool;
    /// The same of rows whose sums do not say so.
    fn are_alike(&self, items: &[Self::Item]) -> bool;
    /// What categories of a node are ordered by.
    fn rank(&self, cell: &[u64], of_node: &[u64]) -> f64;
    /// Appends the shares of a leaf, or returns its number.
    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64;
    /// An item without its row, as [`ITEM_BYTES`](Self::ITEM_BYTES) bytes, and back.
    fn put(item: &Self::Item, bytes: &mut Vec<u8>);
    fn take(bytes: &[u8], row: u32) -> Self::Item;
}

/// Two classes with Gini impurity: Σ weight of class 1 in the upper half of one word, Σ weight in the lower. For weights that count
/// draws, which add up to less than 2³².
pub(super) struct Binary;

#[derive(Clone, Copy)]
pub(super) struct BinaryItem {
    row: u32,
    /// weight·2 + class
    word: u32,
}

impl BinaryItem {
    pub(super) fn new(row: u32, class: u16, weight: u32) -> BinaryItem {
        BinaryItem { row, word: weight << 1 | u32::from(class) }
    }
}

impl Binary {
    /// Σ weight of class 1, and of both.
    #[inline]
    fn parts(cell: &[u64]) -> (u64, u64) {
        (cell[0] >> 32, cell[0] & u64::from(u32::MAX))
    }
}

impl Problem for Binary {
    type Item = BinaryItem;
    type Word = u64;
    const ITEM_BYTES: usize = 4;

    #[inline]
    fn width(&self) -> usize {
        1
    }

    #[inline]
    fn row(item: &BinaryItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &BinaryItem, row: u32) -> BinaryItem {
        BinaryItem { row, ..*item }
    }

    #[inline]
    fn word(item: &BinaryItem) -> u64 {
        let weight = u64::from(item.word >> 1);
        (weight << 32) * u64::from(item.word & 1) + weight
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], word: u64) {
        cell[0] = cell[0].wrapping_add(word);
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        Binary::parts(cell).1
    }

    #[inline]
    fn impurity(&self, cell: &[u64]) -> f64 {
        let (ones, all) = Binary::parts(cell);
        // Both are below 2³².
        2.0 * (ones * (all - ones)) as f64 / all.max(1) as f64
    }

    #[inline]
    fn left_over(&self, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<[f64; 2]> {
        right[0] = total[0].wrapping_sub(left[0]);
        let (of_left, of_right) = (Binary::parts(left), Binary::parts(right));
        if of_left.1 < least_draws || of_right.1 < least_draws {
            return None;
        }
        Some([self.impurity(left), self.impurity(right)])
    }

    #[inline]
    fn is_pure(&self, cell: &[u64]) -> bool {
        let (ones, all) = Binary::parts(cell);
        ones == 0 || ones == all
    }

    fn are_alike(&self, _: &[BinaryItem]) -> bool {
        false
    }

    fn rank(&self, cell: &[u64], _: &[u64]) -> f64 {
        let (ones, all) = Binary::parts(cell);
        ones as f64 / all.max(1) as f64
    }

    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64 {
        shares.push(self.rank(cell, cell) as f32);
        0.0
    }

    fn put(item: &BinaryItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.word.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> BinaryItem {
        BinaryItem { row, word: u32_at(bytes, 0) }
    }
}

/// Classes of any number: Σ weight of each, and draws.
pub(super) struct Classes {
    pub(super) n_classes: usize,
    pub(super) is_entropy: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ClassItem {
    row: u32,
    weight: u32,
    class: u16,
    draws: u16,
}

impl ClassItem {
    pub(super) fn new(row: u32, class: u16, weight: u32, draws: u16) -> ClassItem {
        ClassItem { row, weight, class, draws }
    }

    /// * `by`: of each class.
    pub(super) fn multiply(&mut self, by: &[u32]) {
        self.weight *= by[usize::from(self.class)];
    }
}

impl Problem for Classes {
    type Item = ClassItem;
    type Word = ClassItem;
    const ITEM_BYTES: usize = 8;

    #[inline]
    fn width(&self) -> usize {
        self.n_classes + 1
    }

    #[inline]
    fn row(item: &ClassItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &ClassItem, row: u32) -> ClassItem {
        ClassItem { row, ..*item }
    }

    #[inline]
    fn word(item: &ClassItem) -> ClassItem {
        *item
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], item: ClassItem) {
        cell[usize::from(item.class)] += u64::from(item.weight);
        cell[self.n_classes] += u64::from(item.draws);
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        cell[self.n_classes]
    }

    #[inline]
    fn impurity(&self, cell: &[u64]) -> f64 {
        let cell = &cell[..self.n_classes];
        let all = cell.iter().sum::<u64>() as f64;
        if all == 0.0 {
            return 0.0;
        }
        if self.is_entropy {
            let of_class = |weight: &u64| if *weight == 0 { 0.0 } else { *weight as f64 * libm::log(*weight as f64) };
            return all * libm::log(all) - cell.iter().fold(0.0, |sum, weight| sum + of_class(weight));
        }
        all - cell.iter().fold(0.0, |sum, weight| sum + *weight as f64 * *weight as f64) / all
    }

    #[inline]
    fn is_pure(&self, cell: &[u64]) -> bool {
        cell[..self.n_classes].iter().filter(|weight| **weight > 0).count() < 2
    }

    fn are_alike(&self, _: &[ClassItem]) -> bool {
        false
    }

    /// The share of the class that the node has the most of.
    fn rank(&self, cell: &[u64], of_node: &[u64]) -> f64 {
        let of_node = &of_node[..self.n_classes];
        let most = (1..self.n_classes).fold(0, |most, class| if of_node[class] > of_node[most] { class } else { most });
        cell[most] as f64 / cell[..self.n_classes].iter().sum::<u64>().max(1) as f64
    }

    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64 {
        let cell = &cell[..self.n_classes];
        let all = cell.iter().sum::<u64>().max(1) as f64;
        let share = |weight: &u64| (*weight as f64 / all) as f32;
        // Of two classes that of the second says both.
        shares.extend(cell[if self.n_classes == 2 { 1 } else { 0 }..].iter().map(share));
        0.0
    }

    fn put(item: &ClassItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.weight.to_le_bytes());
        bytes.extend_from_slice(&item.class.to_le_bytes());
        bytes.extend_from_slice(&item.draws.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> ClassItem {
        let [class, draws] = [4, 6].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        ClassItem { row, weight: u32_at(bytes, 0), class, draws }
    }
}

/// Numbers with squared error: Σ weight·target in units, Σ weight, draws.
pub(super) struct Numbers {
    /// What a target of 0 and one unit stand for.
    pub(super) zero: f64,
    pub(super) unit: f64,
}

#[derive(Clone, Copy)]
pub(super) struct NumberItem {
    target: i64,
    row: u32,
    weight: u32,
    draws: u32,
}

impl NumberItem {
    pub(super) fn new(row: u32, target: i64, weight: u32, draws: u32) -> NumberItem {
        NumberItem { target, row, weight, draws }
    }
}

impl Problem for Numbers {
    type Item = NumberItem;
    type Word = [u64; 3];
    const ITEM_BYTES: usize = 16;

    #[inline]
    fn width(&self) -> usize {
        3
    }

    #[inline]
    fn row(item: &NumberItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &NumberItem, row: u32) -> NumberItem {
        NumberItem { row, ..*item }
    }

    #[inline]
    fn word(item: &NumberItem) -> [u64; 3] {
        [(item.target * i64::from(item.weight)) as u64, item.weight.into(), item.draws.into()]
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], word: [u64; 3]) {
        cell.iter_mut().zip(word).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        cell[2]
    }

    #[inline]
    fn impurity(&self, cell: &[u64]) -> f64 {
        let sum = cell[0] as i64 as f64;
        -sum * sum / cell[1].max(1) as f64
    }

    #[inline]
    fn is_pure(&self, _: &[u64]) -> bool {
        false
    }

    fn are_alike(&self, items: &[NumberItem]) -> bool {
        items.windows(2).all(|pair| pair[0].target == pair[1].target)
    }

    fn rank(&self, cell: &[u64], _: &[u64]) -> f64 {
        cell[0] as i64 as f64 / cell[1].max(1) as f64
    }

    fn leaf(&self, cell: &[u64], _: &mut Vec<f32>) -> f64 {
        self.zero + self.rank(cell, cell) * self.unit
    }

    fn put(item: &NumberItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.target.to_le_bytes());
        bytes.extend_from_slice(&item.weight.to_le_bytes());
        bytes.extend_from_slice(&item.draws.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> NumberItem {
        let target = u64::from(u32_at(bytes, 0)) | u64::from(u32_at(bytes, 4)) << 32;
        NumberItem { target: target as i64, row, weight: u32_at(bytes, 8), draws: u32_at(bytes, 12) }
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_are_as_impure_packed_as_by_class() {
        let classes = Classes { n_classes: 2, is_entropy: false };
        for (ones, zeros) in [(0u32, 1u32), (1, 0), (3, 5), (1_000_000, 7), (2_000_000_000, 2_000_000_000)] {
            let (mut packed, mut apart) = ([0u64], [0u64; 3]);
            for (class, weight) in [(1, ones), (0, zeros)] {
                Binary.add(&mut packed, &BinaryItem::new(0, class, weight));
                classes.add(&mut apart, &ClassItem::new(0, class, weight, 1));
            }
            let [one, other] = [Binary.impurity(&packed), classes.impurity(&apart)];
            assert!((one - other).abs() <= 1e-6 * (1.0 + other), "{ones}, {zeros}: {one}, {other}");
            assert_eq!(Binary.is_pure(&packed), classes.is_pure(&apart));
            let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
            Binary.leaf(&packed, &mut of_one);
            classes.leaf(&apart, &mut of_other);
            assert_eq!(of_one, of_other);
        }
    }

    #[test]
    fn items_come_back_from_bytes() {
        let numbers = Numbers { zero: 0.0, unit: 1.0 };
        for target in [0, -1, 1, i64::from(i32::MIN), 1 << 40, -(1 << 40)] {
            let mut bytes = Vec::new();
            Numbers::put(&NumberItem::new(3, target, 7, 2), &mut bytes);
            assert_eq!(bytes.len(), Numbers::ITEM_BYTES);
            let mut cell = [0; 3];
            numbers.add(&mut cell, &Numbers::take(&bytes, 9));
            assert_eq!((cell[0] as i64, cell[1], cell[2]), (7 * target, 7, 2));
        }
        let mut bytes = Vec::new();
        Classes::put(&ClassItem::new(3, 999, 1 << 30, 15), &mut bytes);
        assert_eq!(bytes.len(), Classes::ITEM_BYTES);
        let item = Classes::take(&bytes, 1);
        assert_eq!((item.row, item.class, item.weight, item.draws), (1, 999, 1 << 30, 15));
        let mut bytes = Vec::new();
        Binary::put(&BinaryItem::new(3, 1, 15), &mut bytes);
        assert_eq!((bytes.len(), Binary::take(&bytes, 4).word), (Binary::ITEM_BYTES, 31));
    }
}
