//! The extents of a sparse file, whichever way its archive writes them.

use crate::error::{Error, Result};

/// Most numbers of one map (two for each extent): CVE-2025-58183 is a reader without such a limit.
const MAX_NUMBERS: usize = 1 << 17;

pub fn bounded(numbers: usize) -> Result<()> {
    if numbers > MAX_NUMBERS {
        return Err(Error::new(format!("a sparse file of more than {} extents", MAX_NUMBERS / 2)));
    }
    Ok(())
}

/// Offsets and lengths in turn, to extents: in order, apart, within `size`, and together as long as what is `stored`.
pub fn extents(numbers: &[u64], size: u64, stored: u64) -> Result<Vec<(u64, u64)>> {
    bounded(numbers.len())?;
    let (mut end, mut sum, mut found) = (0, 0, Vec::with_capacity(numbers.len() / 2));
    for pair in numbers.chunks(2) {
        let &[offset, len] = pair else {
            return Err(Error::new("the last extent of a sparse file has no length"));
        };
        let next = offset.checked_add(len).filter(|next| offset >= end && *next <= size);
        end = next.ok_or_else(|| Error::new(format!("an extent of {len} bytes at {offset} of {size}")))?;
        sum += len;
        if len > 0 {
            found.push((offset, len));
        }
    }
    if sum != stored {
        return Err(Error::new(format!(
            "the extents of a sparse file have {sum} bytes, and {stored} are stored"
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_ordered_and_inside() {
        assert_eq!(extents(&[0, 5, 10, 2, 20, 0], 20, 7).unwrap(), [(0, 5), (10, 2)]);
        for (numbers, size, stored) in [
            (&[0, 5, 4, 2][..], 20, 7),
            (&[0, 5][..], 4, 5),
            (&[0, 5][..], 20, 4),
            (&[0][..], 20, 0),
            (&[u64::MAX, 2][..], u64::MAX, 2),
        ] {
            assert!(extents(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }
}
