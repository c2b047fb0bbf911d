//! HMAC-SHA256 signatures of webhooks.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::Secret;
use crate::gateway::pairing::{hex, unhex};

/// Whether `signature`, in hex, is that of the parts put together. Compared in constant time.
pub(in crate::gateway) fn verify(secret: &Secret<String>, parts: &[&[u8]], signature: &str) -> bool {
    let Some(signature) = unhex(signature) else { return false };
    mac(secret, parts).verify_slice(&signature).is_ok()
}

/// The signature of the parts put together, in hex.
pub(in crate::gateway) fn sign(secret: &Secret<String>, parts: &[&[u8]]) -> String {
    hex(&mac(secret, parts).finalize().into_bytes())
}

fn mac(secret: &Secret<String>, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_signature_is_made_and_taken_and_others_are_not() {
        // The example in GitHub's documentation on validating webhook deliveries.
        let secret = Secret::from("It's a Secret to Everybody");
        let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(sign(&secret, &[b"Hello, ", b"World!"]), signature);
        assert!(verify(&secret, &[b"Hello, World!"], signature));
        assert!(!verify(&secret, &[b"Hello, World?"], signature));
        for bad in ["", "757107", &signature.replace('7', "g"), &format!("{signature}00")] {
            assert!(!verify(&secret, &[b"Hello, World!"], bad), "{bad}");
        }
    }
}
