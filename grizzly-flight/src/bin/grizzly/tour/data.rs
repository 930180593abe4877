//! The eight tables: their definitions, and their rows as they are generated.

use arrow::{
    datatypes::SchemaRef,
    error::ArrowError,
    record_batch::{RecordBatch, RecordBatchReader},
};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

/// A table of TPC-H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Region,
    Nation,
    Supplier,
    Customer,
    Part,
    Partsupp,
    Orders,
    Lineitem,
}

/// Rows as they are generated.
pub(crate) type Generated = Box<dyn RecordBatchReader + Send>;

const BATCH_ROWS: usize = 16 * 1024;

impl Table {
    /// From small to large.
    pub(crate) const ALL: [Self; 8] = [
        Self::Region,
        Self::Nation,
        Self::Supplier,
        Self::Customer,
        Self::Part,
        Self::Partsupp,
        Self::Orders,
        Self::Lineitem,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Nation => "nation",
            Self::Supplier => "supplier",
            Self::Customer => "customer",
            Self::Part => "part",
            Self::Partsupp => "partsupp",
            Self::Orders => "orders",
            Self::Lineitem => "lineitem",
        }
    }

    /// The statement that creates it.
    pub(crate) fn definition(self) -> &'static str {
        match self {
            Self::Region => {
                "CREATE TABLE region (r_regionkey BIGINT NOT NULL, r_name VARCHAR NOT NULL, \
                 r_comment VARCHAR NOT NULL, PRIMARY KEY (r_regionkey))"
            }
            Self::Nation => {
                "CREATE TABLE nation (n_nationkey BIGINT NOT NULL, n_name VARCHAR NOT NULL, \
                 n_regionkey BIGINT NOT NULL, n_comment VARCHAR NOT NULL, PRIMARY KEY (n_nationkey))"
            }
            Self::Supplier => {
                "CREATE TABLE supplier (s_suppkey BIGINT NOT NULL, s_name VARCHAR NOT NULL, \
                 s_address VARCHAR NOT NULL, s_nationkey BIGINT NOT NULL, s_phone VARCHAR NOT NULL, \
                 s_acctbal DECIMAL(15, 2) NOT NULL, s_comment VARCHAR NOT NULL, PRIMARY KEY (s_suppkey))"
            }
            Self::Customer => {
                "CREATE TABLE customer (c_custkey BIGINT NOT NULL, c_name VARCHAR NOT NULL, \
                 c_address VARCHAR NOT NULL, c_nationkey BIGINT NOT NULL, c_phone VARCHAR NOT NULL, \
                 c_acctbal DECIMAL(15, 2) NOT NULL, c_mktsegment VARCHAR NOT NULL, c_comment VARCHAR NOT NULL, \
                 PRIMARY KEY (c_custkey))"
            }
            Self::Part => {
                "CREATE TABLE part (p_partkey BIGINT NOT NULL, p_name VARCHAR NOT NULL, p_mfgr VARCHAR NOT NULL, \
                 p_brand VARCHAR NOT NULL, p_type VARCHAR NOT NULL, p_size INT NOT NULL, \
                 p_container VARCHAR NOT NULL, p_retailprice DECIMAL(15, 2) NOT NULL, p_comment VARCHAR NOT NULL, \
                 PRIMARY KEY (p_partkey))"
            }
            Self::Partsupp => {
                "CREATE TABLE partsupp (ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, \
                 ps_availqty INT NOT NULL, ps_supplycost DECIMAL(15, 2) NOT NULL, ps_comment VARCHAR NOT NULL, \
                 PRIMARY KEY (ps_partkey, ps_suppkey))"
            }
            Self::Orders => {
                "CREATE TABLE orders (o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, \
                 o_orderstatus VARCHAR NOT NULL, o_totalprice DECIMAL(15, 2) NOT NULL, o_orderdate DATE NOT NULL, \
                 o_orderpriority VARCHAR NOT NULL, o_clerk VARCHAR NOT NULL, o_shippriority INT NOT NULL, \
                 o_comment VARCHAR NOT NULL, PRIMARY KEY (o_orderkey)) \
                 PARTITION BY HASH(o_orderkey) SHARDS 4"
            }
            Self::Lineitem => {
                "CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, \
                 l_suppkey BIGINT NOT NULL, l_linenumber INT NOT NULL, l_quantity DECIMAL(15, 2) NOT NULL, \
                 l_extendedprice DECIMAL(15, 2) NOT NULL, l_discount DECIMAL(15, 2) NOT NULL, \
                 l_tax DECIMAL(15, 2) NOT NULL, l_returnflag VARCHAR NOT NULL, l_linestatus VARCHAR NOT NULL, \
                 l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, \
                 l_shipinstruct VARCHAR NOT NULL, l_shipmode VARCHAR NOT NULL, l_comment VARCHAR NOT NULL, \
                 PRIMARY KEY (l_orderkey, l_linenumber)) \
                 PARTITION BY HASH(l_orderkey) SHARDS 8"
            }
        }
    }

    /// About how many bytes its rows are in memory at a scale.
    pub(crate) fn estimated_bytes(self, scale: f64) -> f64 {
        let (rows_at_one, row_bytes) = match self {
            Self::Region => return 1e3,
            Self::Nation => return 5e3,
            Self::Supplier => (10_000.0, 230.0),
            Self::Customer => (150_000.0, 250.0),
            Self::Part => (200_000.0, 210.0),
            Self::Partsupp => (800_000.0, 190.0),
            Self::Orders => (1_500_000.0, 200.0),
            Self::Lineitem => (6_000_000.0, 240.0),
        };
        rows_at_one * row_bytes * scale
    }

    /// Its columns.
    pub(crate) fn schema(self) -> SchemaRef {
        self.generate(0.001, 1, 1).schema()
    }

    /// Part `part` (from 1) of `parts` of its rows. All parts together are the same rows for any number of parts.
    pub(crate) fn generate(self, scale: f64, part: i32, parts: i32) -> Generated {
        match self {
            Self::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, part, parts))),
            Self::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, part, parts))),
            Self::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, part, parts))),
            Self::Customer => {
                Box::new(CustomerArrow::new(CustomerGenerator::new(scale, part, parts)).with_batch_size(BATCH_ROWS))
            }
            Self::Part => Box::new(PartArrow::new(PartGenerator::new(scale, part, parts)).with_batch_size(BATCH_ROWS)),
            Self::Partsupp => {
                Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, part, parts)).with_batch_size(BATCH_ROWS))
            }
            Self::Orders => {
                Box::new(OrderArrow::new(OrderGenerator::new(scale, part, parts)).with_batch_size(BATCH_ROWS))
            }
            Self::Lineitem => {
                Box::new(LineItemArrow::new(LineItemGenerator::new(scale, part, parts)).with_batch_size(BATCH_ROWS))
            }
        }
    }

    /// Into how many parts its rows may be split: the two smallest tables only come whole.
    pub(crate) fn parts(self) -> i32 {
        if matches!(self, Self::Region | Self::Nation) { 1 } else { 2 }
    }
}

/// A batch, or why it could not be made.
pub(crate) type GeneratedBatch = Result<RecordBatch, ArrowError>;
