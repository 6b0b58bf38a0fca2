//! Indexes, manifests and configurations of images: read or refused, whatever they hold.

use types::ErrorCode;

pub fn image_document(data: &[u8]) {
    if let Err(fault) = providers::images::oci::check_document(data) {
        assert_eq!(fault.code, ErrorCode::Unprocessable, "{fault}");
        assert!(fault.message.chars().all(|c| !c.is_control()), "{:?}", fault.message);
        assert!(fault.message.len() < 300, "{}", fault.message);
    }
}
