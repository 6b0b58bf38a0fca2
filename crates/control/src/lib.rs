//! Decides: who may have which sandbox, where, and until when. Knows no provider, serves no HTTP.
