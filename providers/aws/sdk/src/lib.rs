//! The calls of the AWS provider, over the official SDK.
