//! The bodies of the fuzz targets: functions of bytes, which panic when something is wrong.
//!
//! `scripts/fuzz` explores; `control/api/tests/corpus.rs` includes this file and replays `corpus/` in every test run.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ployz_api::{
    HEADER_LEN, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Request, Response, Token, body_len, encode,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A frame as it comes from the network. No more is taken than may be sent, and what is taken can be framed again.
pub fn frame(data: &[u8]) {
    let Some((header, body)) = data.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    let announced = u32::from_be_bytes(*header) as usize;
    for max in [REQUEST_LEN_MAX, RESPONSE_LEN_MAX] {
        assert_eq!(
            body_len(*header, max).ok(),
            (announced <= max).then_some(announced)
        );
    }
    let body = &body[..body.len().min(announced)];
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let text = serde_json::to_vec(&value).expect("a value is JSON");
    assert!(
        encode(&value, text.len() - 1).is_err(),
        "one byte too little"
    );
    let framed = encode(&value, text.len()).expect("it fits");
    let (header, again) = framed.split_first_chunk().expect("a frame has a header");
    assert_eq!(body_len(*header, text.len()), Ok(again.len()));
    assert_eq!(again, text);
}

/// The body of a request, and of an answer: what is understood means the same when it is said again.
pub fn request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let operation = request.operation();
        assert_eq!(operation.row().operation, operation);
        let said = serde_json::to_vec(&request).expect("a request is JSON");
        let again: Request = serde_json::from_slice(&said).expect("it is understood");
        assert_eq!(serde_json::to_vec(&again).ok().as_ref(), Some(&said));
    }
    if let Ok(response) = serde_json::from_slice::<Response>(data) {
        let said = serde_json::to_vec(&response).expect("an answer is JSON");
        let again: Response = serde_json::from_slice(&said).expect("it is understood");
        assert_eq!(serde_json::to_vec(&again).ok().as_ref(), Some(&said));
    }
}

/// Text that should be a token; and the same bytes where a token has its content, with the right checksum, which chance
/// does not find.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_token(text);
    }
    let mut content = data.to_vec();
    content.extend_from_slice(&Sha256::digest(data)[..8]);
    let content = BASE64.encode(content);
    for prefix in ["ployz1", "ployz2"] {
        check_token(&format!("{prefix}.{content}"));
    }
}

fn check_token(text: &str) {
    let Ok(token) = Token::decode(text) else {
        return;
    };
    let word = token.encode();
    let again = Token::decode(word.expose()).expect("what we make we understand");
    assert_eq!(again.encode().expose(), word.expose());
    assert!(
        !format!("{token:?}").contains("secret: \""),
        "it shows its secret"
    );
}
