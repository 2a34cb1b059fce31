//! ApiVersions, also in versions that are not served.

use crate::apis::{APIS, Response};
use crate::codec::text::Str;
use crate::errors;
use crate::messages::metadata::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey};

/// The feature by which clients know that the new group protocol is served (KIP-848).
const GROUP_VERSION: &str = "group.version";
/// The feature level of Apache Kafka 4.1 that the served versions correspond to.
const METADATA_VERSION: (&str, i16, i16) = ("metadata.version", 7, 27);

pub fn api_versions(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let acceptable = |text: &Str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        edge(text.as_bytes().first()) && edge(text.as_bytes().last()) && text.as_bytes().iter().all(|byte| inner(*byte))
    };
    // KIP-511: names and versions of client software have a form, so that they can be shown and counted.
    if version >= 3 && !(acceptable(&request.client_software_name) && acceptable(&request.client_software_version)) {
        return ApiVersionsResponse { error_code: errors::INVALID_REQUEST, ..ApiVersionsResponse::default() };
    }
    let (metadata, metadata_min, metadata_max) = METADATA_VERSION;
    ApiVersionsResponse {
        api_keys: served(),
        supported_features: vec![
            SupportedFeatureKey { name: Str::fixed(GROUP_VERSION), min_version: 0, max_version: 1 },
            SupportedFeatureKey { name: Str::fixed(metadata), min_version: metadata_min, max_version: metadata_max },
        ],
        finalized_features_epoch: 0,
        finalized_features: vec![
            FinalizedFeatureKey { name: Str::fixed(GROUP_VERSION), min_version_level: 1, max_version_level: 1 },
            FinalizedFeatureKey { name: Str::fixed(metadata), min_version_level: metadata_max, max_version_level: metadata_max },
        ],
        ..ApiVersionsResponse::default()
    }
}

fn served() -> Vec<ApiVersion> {
    let line = |api: &crate::apis::Api| ApiVersion { api_key: api.key.number(), min_version: api.min, max_version: api.max };
    APIS.iter().map(line).collect()
}

/// The answer to a version of ApiVersions that is not served, to be written in version 0: what is.
pub fn unserved() -> Response {
    ApiVersionsResponse { error_code: errors::UNSUPPORTED_VERSION, api_keys: served(), ..ApiVersionsResponse::default() }.into()
}
