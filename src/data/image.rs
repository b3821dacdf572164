//! The shape of rows that are images.

use std::fmt;

/// What each row of a table is, where its features are one dataset of shape n × height × width [× channels].
///
/// Its columns are the values in the order stored: rows of the image from the top, in each its pixels, in each its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    /// 1 where the dataset has no axis for them.
    pub channels: usize,
}

impl Image {
    /// Of the axes of a dataset after its rows: two, or three with channels. None: too few, too many, or one is 0.
    pub fn of_axes(axes: &[u64]) -> Option<Image> {
        let (height, width, channels) = match *axes {
            [height, width] => (height, width, 1),
            [height, width, channels] => (height, width, channels),
            _ => return None,
        };
        let axis = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
        let image = Image { height: axis(height)?, width: axis(width)?, channels: axis(channels)? };
        image.n_values().map(|_| image)
    }

    /// Columns that it has. None: more than can be counted.
    pub fn n_values(&self) -> Option<usize> {
        self.height.checked_mul(self.width)?.checked_mul(self.channels)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} × {}", self.height, self.width, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_axes_or_three_make_an_image() {
        let grey = Image { height: 28, width: 7, channels: 1 };
        assert_eq!(Image::of_axes(&[28, 7]), Some(grey));
        assert_eq!(Image::of_axes(&[28, 7, 3]), Some(Image { channels: 3, ..grey }));
        assert_eq!((grey.to_string(), grey.n_values()), ("28 × 7 × 1".to_string(), Some(196)));
        for odd in [&[][..], &[196], &[2, 3, 4, 5], &[28, 0], &[28, 7, 0], &[u64::MAX, u64::MAX]] {
            assert_eq!(Image::of_axes(odd), None, "{odd:?}");
        }
    }
}
