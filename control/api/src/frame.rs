//! A frame: its length in four bytes, most significant first, then that much JSON.

use serde::Serialize;

/// Bytes in front of the JSON.
pub const HEADER_LEN: usize = 4;

/// A frame of nothing: the other side is still there, and has nothing to say.
pub const HEARTBEAT: [u8; HEADER_LEN] = [0; HEADER_LEN];

/// The largest request is a redemption, at under 2 KiB.
pub const REQUEST_LEN_MAX: usize = 64 * 1024;

/// The largest answer is a list of 200 machines at about 1 KiB each; this is five times that.
pub const RESPONSE_LEN_MAX: usize = 1024 * 1024;

/// A frame that is refused before it is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side announces more than it may send.
    #[error("the frame has {len} bytes; {max} are allowed")]
    TooLong {
        /// The announced length.
        len: usize,
        /// The allowed length.
        max: usize,
    },
    /// Something of ours that does not fit.
    #[error("the message cannot be encoded: {0}")]
    Encode(String),
}

/// Puts a value into a frame.
///
/// # Errors
/// [`FrameError`] if it is longer than `max`.
pub fn encode(value: &impl Serialize, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut frame, value).map_err(|e| FrameError::Encode(e.to_string()))?;
    let len = frame.len() - HEADER_LEN;
    let header = u32::try_from(len)
        .ok()
        .filter(|_| len <= max)
        .ok_or(FrameError::TooLong { len, max })?;
    frame[..HEADER_LEN].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// How many bytes follow a header.
///
/// # Errors
/// [`FrameError::TooLong`] if they are more than `max`.
pub const fn body_len(header: [u8; HEADER_LEN], max: usize) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(header) as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_has_its_length_in_front_and_no_more_than_is_allowed() {
        let frame = encode(&"hello", 7).unwrap();
        let (header, body) = frame.split_first_chunk().unwrap();
        assert_eq!((body_len(*header, 7), body), (Ok(7), &b"\"hello\""[..]));
        assert_eq!(
            body_len(*header, 6),
            Err(FrameError::TooLong { len: 7, max: 6 })
        );
        assert_eq!(
            encode(&"hello", 6),
            Err(FrameError::TooLong { len: 7, max: 6 })
        );
        assert!(body_len([0xff; 4], RESPONSE_LEN_MAX).is_err());
    }
}
