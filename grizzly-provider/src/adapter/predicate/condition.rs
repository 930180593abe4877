//! A condition with SQL's three truth values, and the engine's predicate for the rows where it has one of them.

use arrow::{array::ArrayRef, datatypes::Schema};
use datafusion::common::ScalarValue;

use super::{
    Conversion,
    term::{Term, comparable, is_text},
};
use crate::access::{ColumnTest, CompareOp, Predicate};

/// What a condition can be for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Null,
}

/// A condition, as far as it can be understood.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// A comparison.
    Compare(Term, CompareOp, Term),
    /// `IS DISTINCT FROM`.
    Distinct(Term, Term),
    /// `IN` with literals, or NOT IN.
    InList { term: Term, list: Vec<ScalarValue>, negated: bool },
    /// The text begins so; if not `complete`, it must meet more than that.
    Prefix { term: Term, prefix: String, complete: bool },
    /// `IS NULL` of an operand.
    IsNull(Term),
    /// A boolean operand.
    Value(Term),
    /// NOT.
    Not(Box<Condition>),
    /// All of them.
    And(Vec<Condition>),
    /// At least one of them.
    Or(Vec<Condition>),
    /// `IS TRUE`, `IS FALSE`, `IS UNKNOWN`.
    Is(Box<Condition>, Truth),
    /// Cannot be true unless one of them is.
    TrueOnlyIfAny(Vec<Condition>),
    /// Anything else.
    Opaque,
}

impl Condition {
    /// NOT.
    pub(super) fn negate(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The rows for which the condition is `truth`.
    pub(super) fn when(&self, truth: Truth, schema: &Schema) -> Conversion {
        match self {
            Self::Compare(left, op, right) => compare(left, *op, right, truth, schema),
            Self::Distinct(left, right) => distinct(left, right, truth, schema),
            Self::InList { term, list, negated } => in_list(term, list, *negated, truth, schema),
            Self::Prefix { term, prefix, complete } => begins_with(term, prefix, *complete, truth, schema),
            Self::IsNull(term) => is_null(term, truth, schema),
            Self::Value(term) => value(term, truth, schema),
            Self::Not(inner) => inner.when(truth.negate(), schema),
            Self::And(parts) => connective(parts, Truth::False, truth, schema),
            Self::Or(parts) => connective(parts, Truth::True, truth, schema),
            Self::Is(inner, wanted) => match truth {
                Truth::True => inner.when(*wanted, schema),
                Truth::False => any(wanted.others().map(|other| inner.when(other, schema))),
                Truth::Null => never(),
            },
            Self::TrueOnlyIfAny(parts) if truth == Truth::True => {
                any(parts.iter().map(|part| part.when(Truth::True, schema))).weakened()
            }
            Self::TrueOnlyIfAny(_) | Self::Opaque => Conversion::No,
        }
    }
}

impl Truth {
    fn negate(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Null => Self::Null,
        }
    }

    fn others(self) -> impl Iterator<Item = Self> {
        [Self::True, Self::False, Self::Null].into_iter().filter(move |truth| *truth != self)
    }
}

/// AND, whose `dominant` truth is FALSE, or OR, whose dominant truth is TRUE: one dominant part decides; otherwise
/// one NULL part makes it NULL.
fn connective(parts: &[Condition], dominant: Truth, truth: Truth, schema: &Schema) -> Conversion {
    let each = |truth| parts.iter().map(move |part| part.when(truth, schema));
    if truth == dominant {
        any(each(dominant))
    } else if truth == Truth::Null {
        let undecided = all(parts.iter().map(|part| any(dominant.others().map(|truth| part.when(truth, schema)))));
        all([undecided, any(each(Truth::Null))])
    } else {
        all(each(truth))
    }
}

fn compare(left: &Term, op: CompareOp, right: &Term, truth: Truth, schema: &Schema) -> Conversion {
    let op = if truth == Truth::False { invert(op) } else { op };
    match (left, right) {
        (Term::Literal(_), Term::Literal(_)) => Conversion::No,
        (Term::Literal(_), _) => compare(right, mirror(op), left, truth_kept(truth), schema),
        (term, Term::Literal(value)) if value.is_null() => match (truth, term.column(schema)) {
            (_, None) => Conversion::No,
            (Truth::Null, _) => always(),
            _ => never(),
        },
        (term, Term::Literal(value)) => match (term.column_and_value(value, schema), truth) {
            (Some((column, _)), Truth::Null) => null_test(column, true),
            (Some((column, value)), _) => value_test(column, op, &value),
            (None, _) => Conversion::No,
        },
        (left, right) => match (column_pair(left, right, schema), truth) {
            (Some((left, right)), Truth::Null) => any([null_test(left, true), null_test(right, true)]),
            (Some((left, right)), _) => Conversion::Exact(Predicate::CompareColumns { left, op, right }),
            (None, _) => Conversion::No,
        },
    }
}

/// The operator is already inverted when FALSE was asked for; the mirrored comparison must not invert it again.
fn truth_kept(truth: Truth) -> Truth {
    if truth == Truth::Null { Truth::Null } else { Truth::True }
}

fn distinct(left: &Term, right: &Term, truth: Truth, schema: &Schema) -> Conversion {
    if truth == Truth::Null {
        return never();
    }
    let distinct = truth == Truth::True;
    let (term, value) = match (left, right) {
        (Term::Literal(value), term) | (term, Term::Literal(value)) => (term, value),
        (left, right) => return distinct_columns(left, right, distinct, schema),
    };
    if value.is_null() {
        return term.column(schema).map_or(Conversion::No, |column| null_test(column, !distinct));
    }
    match term.column_and_value(value, schema) {
        Some((column, value)) if distinct => {
            any([value_test(column, CompareOp::NotEq, &value), null_test(column, true)])
        }
        Some((column, value)) => value_test(column, CompareOp::Eq, &value),
        None => Conversion::No,
    }
}

fn distinct_columns(left: &Term, right: &Term, distinct: bool, schema: &Schema) -> Conversion {
    let Some((left, right)) = column_pair(left, right, schema) else {
        return Conversion::No;
    };
    let compared = |op| Conversion::Exact(Predicate::CompareColumns { left, op, right });
    let nulls = |left_null, right_null| all([null_test(left, left_null), null_test(right, right_null)]);
    if distinct {
        any([compared(CompareOp::NotEq), nulls(true, false), nulls(false, true)])
    } else {
        any([compared(CompareOp::Eq), nulls(true, true)])
    }
}

/// Two columns of one type; a cast on either side changes the type, so there must be none.
fn column_pair(left: &Term, right: &Term, schema: &Schema) -> Option<(usize, usize)> {
    let (Term::Column(left), Term::Column(right)) = (left, right) else {
        return None;
    };
    let data_type = schema.fields().get(*left)?.data_type();
    let same = schema.fields().get(*right)?.data_type() == data_type;
    (same && comparable(data_type)).then_some((*left, *right))
}

fn in_list(term: &Term, list: &[ScalarValue], negated: bool, truth: Truth, schema: &Schema) -> Conversion {
    let Some(column) = term.column(schema) else {
        return Conversion::No;
    };
    let truth = if negated { truth.negate() } else { truth };
    let has_null = list.iter().any(ScalarValue::is_null);
    let values = list.iter().filter(|value| !value.is_null());
    let values = values.map(|value| Some(term.column_and_value(value, schema)?.1)).collect::<Option<Vec<_>>>();
    let (Some(values), false) = (values, list.is_empty()) else {
        return Conversion::No;
    };
    let member = |negated| member_test(column, &values, negated);
    match truth {
        Truth::True => member(false),
        // A NULL in the list leaves open whether the value is in it.
        Truth::False if has_null => never(),
        Truth::False => member(true),
        Truth::Null if has_null => any([null_test(column, true), member(true)]),
        Truth::Null => null_test(column, true),
    }
}

fn member_test(column: usize, values: &[ScalarValue], negated: bool) -> Conversion {
    match values {
        [] if negated => null_test(column, false),
        [] => never(),
        [value] => value_test(column, if negated { CompareOp::NotEq } else { CompareOp::Eq }, value),
        values => match ScalarValue::iter_to_array(values.iter().cloned()) {
            Ok(values) => test(column, ColumnTest::InList { values, negated }),
            Err(_) => Conversion::No,
        },
    }
}

fn begins_with(term: &Term, prefix: &str, complete: bool, truth: Truth, schema: &Schema) -> Conversion {
    let column = term.column(schema);
    let column = column.filter(|column| schema.fields().get(*column).is_some_and(|f| is_text(f.data_type())));
    let Some(column) = column else {
        return Conversion::No;
    };
    let bound = |op, text: &str| {
        let text = ScalarValue::Utf8(Some(text.to_owned()));
        match term.column_and_value(&text, schema) {
            Some((column, value)) => value_test(column, op, &value),
            None => Conversion::No,
        }
    };
    let after = successor(prefix);
    match truth {
        Truth::Null => null_test(column, true),
        Truth::False if !complete => Conversion::No,
        Truth::False => {
            let above = after.map_or_else(never, |after| bound(CompareOp::GtEq, &after));
            any([bound(CompareOp::Lt, prefix), above])
        }
        Truth::True => {
            let below = after.map_or_else(always, |after| bound(CompareOp::Lt, &after));
            let range = all([bound(CompareOp::GtEq, prefix), below]);
            if complete { range } else { range.weakened() }
        }
    }
}

/// The least string greater than every string that begins with `prefix`, if there is one. UTF-8 sorts like code
/// points do.
fn successor(prefix: &str) -> Option<String> {
    let mut rest: Vec<char> = prefix.chars().collect();
    while let Some(last) = rest.pop() {
        // Past the last code point before the surrogates comes the first after them.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            rest.push(next);
            return Some(rest.into_iter().collect());
        }
    }
    None
}

fn is_null(term: &Term, truth: Truth, schema: &Schema) -> Conversion {
    match (truth, term.column(schema)) {
        (Truth::Null, _) => never(),
        (_, Some(column)) => null_test(column, truth == Truth::True),
        (_, None) => Conversion::No,
    }
}

fn value(term: &Term, truth: Truth, schema: &Schema) -> Conversion {
    match term {
        Term::Literal(value) if value.is_null() => constant(truth == Truth::Null),
        Term::Literal(ScalarValue::Boolean(Some(value))) => {
            constant(truth == if *value { Truth::True } else { Truth::False })
        }
        Term::Column(column) if truth == Truth::Null => null_test(*column, true),
        column @ Term::Column(_) => {
            let wanted = ScalarValue::Boolean(Some(truth == Truth::True));
            let is_true = Term::Literal(wanted);
            compare(column, CompareOp::Eq, &is_true, Truth::True, schema)
        }
        _ => Conversion::No,
    }
}

fn test(column: usize, test: ColumnTest) -> Conversion {
    Conversion::Exact(Predicate::Test { column, test })
}

fn null_test(column: usize, null: bool) -> Conversion {
    test(column, if null { ColumnTest::IsNull } else { ColumnTest::IsNotNull })
}

fn value_test(column: usize, op: CompareOp, value: &ScalarValue) -> Conversion {
    match value.to_array() {
        Ok(value) => test(column, compare_with(op, value)),
        Err(_) => Conversion::No,
    }
}

fn compare_with(op: CompareOp, value: ArrayRef) -> ColumnTest {
    ColumnTest::Compare { op, value }
}

fn constant(value: bool) -> Conversion {
    Conversion::Exact(Predicate::Constant(value))
}

fn never() -> Conversion {
    constant(false)
}

fn always() -> Conversion {
    constant(true)
}

/// The rows of all parts. A part that cannot be converted leaves more rows than it should.
fn all(parts: impl IntoIterator<Item = Conversion>) -> Conversion {
    let mut exact = true;
    let mut predicates = Vec::new();
    for part in parts {
        exact &= matches!(part, Conversion::Exact(_));
        predicates.extend(part.into_predicate());
    }
    match (exact, predicates.is_empty()) {
        (true, _) => Conversion::Exact(conjunction(predicates)),
        (false, false) => Conversion::Superset(conjunction(predicates)),
        (false, true) => Conversion::No,
    }
}

/// The rows of any part. A part that cannot be converted makes the whole inconvertible.
fn any(parts: impl IntoIterator<Item = Conversion>) -> Conversion {
    let mut exact = true;
    let mut predicates = Vec::new();
    for part in parts {
        match part {
            Conversion::Exact(predicate) => predicates.push(predicate),
            Conversion::Superset(predicate) => {
                exact = false;
                predicates.push(predicate);
            }
            Conversion::No => return Conversion::No,
        }
    }
    let predicate = disjunction(predicates);
    if exact { Conversion::Exact(predicate) } else { Conversion::Superset(predicate) }
}

/// AND of predicates, flat and without constants.
pub(super) fn conjunction(parts: Vec<Predicate>) -> Predicate {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Predicate::Constant(true) => {}
            Predicate::Constant(false) => return Predicate::Constant(false),
            Predicate::And(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Predicate::Constant(true),
        1 => flat.swap_remove(0),
        _ => Predicate::And(flat),
    }
}

/// OR of predicates, flat and without constants.
fn disjunction(parts: Vec<Predicate>) -> Predicate {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Predicate::Constant(false) => {}
            Predicate::Constant(true) => return Predicate::Constant(true),
            Predicate::Or(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Predicate::Constant(false),
        1 => flat.swap_remove(0),
        _ => Predicate::Or(flat),
    }
}

/// The comparison that is true where this one is false.
fn invert(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Eq => CompareOp::NotEq,
        CompareOp::NotEq => CompareOp::Eq,
        CompareOp::Lt => CompareOp::GtEq,
        CompareOp::LtEq => CompareOp::Gt,
        CompareOp::Gt => CompareOp::LtEq,
        CompareOp::GtEq => CompareOp::Lt,
    }
}

/// The comparison with its sides swapped.
fn mirror(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Eq | CompareOp::NotEq => op,
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::LtEq => CompareOp::GtEq,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::GtEq => CompareOp::LtEq,
    }
}
