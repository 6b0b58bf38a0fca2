//! A typed client of the REST API. The command line and the tests use it, so it cannot rot.
