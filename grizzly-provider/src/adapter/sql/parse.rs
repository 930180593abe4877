//! From text to statements: what sqlparser cannot parse is taken out of the tokens first.

use datafusion::{
    error::{DataFusionError, Result},
    sql::{
        parser::{DFParserBuilder, Statement},
        sqlparser::{
            keywords::Keyword,
            parser::ParserError,
            tokenizer::{Token, TokenWithSpan, Tokenizer},
        },
    },
};

use super::{
    GrizzlyDialect,
    depth::{bounded, too_nested},
};
use crate::{Error, ErrorKind};

/// Bytes that a SQL text may have: its tree takes some twenty times as much.
const MAX_BYTES: usize = 16 << 20;

/// One statement.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The statement, without what the fields below hold.
    pub(crate) statement: Statement,
    /// `SHARDS n` of a CREATE TABLE.
    pub(crate) shards: Option<u32>,
}

/// Parses the statements of `sql`, separated by semicolons.
pub(crate) fn parse(sql: &str, recursion_limit: usize) -> Result<Vec<Parsed>> {
    if sql.len() > MAX_BYTES {
        let message =
            format!("a SQL text of {} bytes exceeds the limit of {MAX_BYTES}; send rows by ingest", sql.len());
        return Err(Error::new(ErrorKind::TooComplex, message).into());
    }
    let tokens = Tokenizer::new(&GrizzlyDialect, sql).tokenize_with_location().map_err(ParserError::from)?;
    let statements = tokens.split(|token| token.token == Token::SemiColon);
    let statements = statements.filter(|tokens| !tokens.iter().all(|token| is_blank(&token.token)));
    statements.map(|tokens| parse_one(tokens.to_vec(), recursion_limit)).collect()
}

/// The text of one SQL expression as sqlparser sees it, or a whole statement given as text made by this crate.
pub(super) fn parse_template(sql: &str) -> Result<Statement> {
    match parse(sql, 50)?.pop() {
        Some(parsed) => Ok(parsed.statement),
        None => Err(Error::internal("an empty statement template").into()),
    }
}

fn parse_one(mut tokens: Vec<TokenWithSpan>, recursion_limit: usize) -> Result<Parsed> {
    abort_means_rollback(&mut tokens);
    let shards = take_shards(&mut tokens)?;
    let tokens = bounded(tokens, recursion_limit)?;
    let builder = DFParserBuilder::new(tokens).with_dialect(&GrizzlyDialect).with_recursion_limit(recursion_limit);
    let mut statements = builder.build()?.parse_statements().map_err(|error| match error.find_root() {
        DataFusionError::SQL(cause, _) if **cause == ParserError::RecursionLimitExceeded => {
            too_nested(recursion_limit).into()
        }
        _ => error,
    })?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(Parsed { statement, shards }),
        _ => Err(Error::invalid("statements must be separated by semicolons").into()),
    }
}

/// sqlparser does not know PostgreSQL's `ABORT`.
fn abort_means_rollback(tokens: &mut [TokenWithSpan]) {
    if let Some(first) = tokens.iter_mut().find(|token| !is_blank(&token.token))
        && is_word(&first.token, "ABORT")
    {
        first.token = Token::make_word("ROLLBACK", None);
    }
}

/// Takes `SHARDS n` out of `CREATE TABLE … PARTITION BY HASH (a, b) SHARDS n`.
fn take_shards(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<u32>> {
    let words: Vec<usize> = (0..tokens.len()).filter(|at| !is_blank(&tokens[*at].token)).collect();
    let keyword = |at: usize, keyword: Keyword| {
        words.get(at).is_some_and(|at| matches!(&tokens[*at].token, Token::Word(word) if word.keyword == keyword))
    };
    let create_table = keyword(0, Keyword::CREATE)
        && (keyword(1, Keyword::TABLE) || (keyword(1, Keyword::OR) && keyword(3, Keyword::TABLE)));
    if !create_table {
        return Ok(None);
    }
    let mut depth = 0usize;
    for pair in words.windows(2) {
        match (&tokens[pair[0]].token, &tokens[pair[1]].token) {
            (Token::LParen, _) => depth += 1,
            (Token::RParen, _) => depth = depth.saturating_sub(1),
            (word, Token::Number(number, _)) if depth == 0 && is_word(word, "SHARDS") => {
                let shards = number.parse().ok().filter(|shards| *shards > 0);
                let shards =
                    shards.ok_or_else(|| Error::invalid(format!("SHARDS {number} is not a number of shards")))?;
                tokens.drain(pair[0]..=pair[1]);
                return Ok(Some(shards));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}
