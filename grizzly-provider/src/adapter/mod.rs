//! Grizzly as DataFusion sees it: tables, catalog, sessions, DML.
