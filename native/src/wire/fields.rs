//! Field numbers and enum values of the messages that are read and written by hand.
//!
//! Generated from `protos/` by `make protos`; not to be edited.

/// `google.protobuf.Struct`.
pub mod struct_ {
    pub const FIELDS: u32 = 1;
}

/// `google.protobuf.Value`.
pub mod value {
    pub const NULL_VALUE: u32 = 1;
    pub const NUMBER_VALUE: u32 = 2;
    pub const STRING_VALUE: u32 = 3;
    pub const BOOL_VALUE: u32 = 4;
    pub const STRUCT_VALUE: u32 = 5;
    pub const LIST_VALUE: u32 = 6;
}

/// `google.protobuf.ListValue`.
pub mod list_value {
    pub const VALUES: u32 = 1;
}

/// `envoy.config.core.v3.HeaderValue`.
pub mod header_value {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
    pub const RAW_VALUE: u32 = 3;
}

/// `envoy.config.core.v3.HeaderMap`.
pub mod header_map {
    pub const HEADERS: u32 = 1;
}

/// `envoy.config.core.v3.HeaderValueOption`.
pub mod header_value_option {
    pub const HEADER: u32 = 1;
}

/// `envoy.config.core.v3.Metadata`.
pub mod metadata {
    pub const FILTER_METADATA: u32 = 1;
}

/// Values of `envoy.extensions.filters.http.ext_proc.v3.ProcessingMode.BodySendMode`.
pub mod body_send_mode {
    pub const NONE: u64 = 0;
    pub const STREAMED: u64 = 1;
    pub const BUFFERED: u64 = 2;
    pub const BUFFERED_PARTIAL: u64 = 3;
    pub const FULL_DUPLEX_STREAMED: u64 = 4;
    pub const GRPC: u64 = 5;
}

/// `envoy.type.v3.HttpStatus`.
pub mod http_status {
    pub const CODE: u32 = 1;
}

/// `envoy.service.ext_proc.v3.ProcessingRequest`.
pub mod processing_request {
    pub const REQUEST_HEADERS: u32 = 2;
    pub const RESPONSE_HEADERS: u32 = 3;
    pub const REQUEST_BODY: u32 = 4;
    pub const RESPONSE_BODY: u32 = 5;
    pub const REQUEST_TRAILERS: u32 = 6;
    pub const RESPONSE_TRAILERS: u32 = 7;
    pub const METADATA_CONTEXT: u32 = 8;
    pub const OBSERVABILITY_MODE: u32 = 10;
    pub const PROTOCOL_CONFIG: u32 = 11;
}

/// `envoy.service.ext_proc.v3.ProtocolConfiguration`.
pub mod protocol_configuration {
    pub const REQUEST_BODY_MODE: u32 = 1;
    pub const RESPONSE_BODY_MODE: u32 = 2;
}

/// `envoy.service.ext_proc.v3.HttpHeaders`.
pub mod http_headers {
    pub const HEADERS: u32 = 1;
    pub const END_OF_STREAM: u32 = 3;
}

/// `envoy.service.ext_proc.v3.HttpBody`.
pub mod http_body {
    pub const BODY: u32 = 1;
    pub const END_OF_STREAM: u32 = 2;
    pub const END_OF_STREAM_WITHOUT_MESSAGE: u32 = 3;
    pub const GRPC_MESSAGE_COMPRESSED: u32 = 4;
}

/// `envoy.service.ext_proc.v3.ProcessingResponse`.
pub mod processing_response {
    pub const REQUEST_HEADERS: u32 = 1;
    pub const RESPONSE_HEADERS: u32 = 2;
    pub const REQUEST_BODY: u32 = 3;
    pub const RESPONSE_BODY: u32 = 4;
    pub const REQUEST_TRAILERS: u32 = 5;
    pub const RESPONSE_TRAILERS: u32 = 6;
    pub const IMMEDIATE_RESPONSE: u32 = 7;
    pub const DYNAMIC_METADATA: u32 = 8;
}

/// `envoy.service.ext_proc.v3.HeadersResponse`.
pub mod headers_response {
    pub const RESPONSE: u32 = 1;
}

/// `envoy.service.ext_proc.v3.BodyResponse`.
pub mod body_response {
    pub const RESPONSE: u32 = 1;
}

/// `envoy.service.ext_proc.v3.CommonResponse`.
pub mod common_response {
    pub const HEADER_MUTATION: u32 = 2;
    pub const BODY_MUTATION: u32 = 3;
    pub const CLEAR_ROUTE_CACHE: u32 = 5;
}

/// `envoy.service.ext_proc.v3.HeaderMutation`.
pub mod header_mutation {
    pub const SET_HEADERS: u32 = 1;
    pub const REMOVE_HEADERS: u32 = 2;
}

/// `envoy.service.ext_proc.v3.BodyMutation`.
pub mod body_mutation {
    pub const BODY: u32 = 1;
    pub const CLEAR_BODY: u32 = 2;
    pub const STREAMED_RESPONSE: u32 = 3;
}

/// `envoy.service.ext_proc.v3.StreamedBodyResponse`.
pub mod streamed_body_response {
    pub const BODY: u32 = 1;
    pub const END_OF_STREAM: u32 = 2;
    pub const END_OF_STREAM_WITHOUT_MESSAGE: u32 = 3;
    pub const GRPC_MESSAGE_COMPRESSED: u32 = 4;
}

/// `envoy.service.ext_proc.v3.ImmediateResponse`.
pub mod immediate_response {
    pub const STATUS: u32 = 1;
    pub const HEADERS: u32 = 2;
    pub const BODY: u32 = 3;
    pub const GRPC_STATUS: u32 = 4;
    pub const DETAILS: u32 = 5;
}

/// `envoy.service.ext_proc.v3.GrpcStatus`.
pub mod grpc_status {
    pub const STATUS: u32 = 1;
}

/// `grpc.health.v1.HealthCheckRequest`.
pub mod health_check_request {
    pub const SERVICE: u32 = 1;
}

/// `grpc.health.v1.HealthCheckResponse`.
pub mod health_check_response {
    pub const STATUS: u32 = 1;
}

/// Values of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
pub mod serving_status {
    pub const UNKNOWN: u64 = 0;
    pub const SERVING: u64 = 1;
    pub const NOT_SERVING: u64 = 2;
    pub const SERVICE_UNKNOWN: u64 = 3;
}

/// `grpc.health.v1.HealthListResponse`.
pub mod health_list_response {
    pub const STATUSES: u32 = 1;
}
