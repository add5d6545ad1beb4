//! The tables that a text makes itself. What is done to those is harmless: nobody else sees them before the commit, and they
//! have no rows that were there before.

use squawk_syntax::ast::{self, AstNode};

/// A table by name, folded as the server folds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    schema: Option<String>,
    table: String,
}

impl Name {
    fn used(path: &ast::PathRef) -> Option<Self> {
        let schema = path.qualifier().and_then(|it| it.segment()).map(|it| it.text());
        Some(Self { schema, table: path.segment()?.text() })
    }

    fn made(path: &ast::Path) -> Option<Self> {
        let schema = path.qualifier().and_then(|it| it.segment()).map(|it| it.text());
        Some(Self { schema, table: path.segment()?.text() })
    }

    /// Where one of the two names no schema, the search path decides: then equal names are taken for one table.
    fn may_be(&self, other: &Self) -> bool {
        let same = match (&self.schema, &other.schema) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        same && self.table == other.table
    }
}

/// The tables made so far.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<Name>);

impl Made {
    /// Takes note of what a statement makes.
    pub(super) fn note(&mut self, statement: &ast::Stmt) {
        let path = match statement {
            ast::Stmt::CreateTable(it) => it.table_name().and_then(|it| it.path()),
            ast::Stmt::CreateTableAs(it) => it.table_name().and_then(|it| it.path()),
            ast::Stmt::CreateMaterializedView(it) => it.view().and_then(|it| it.path()),
            _ => None,
        };
        self.0.extend(path.as_ref().and_then(Name::made));
    }

    fn has(&self, path: Option<ast::PathRef>) -> bool {
        let name = path.as_ref().and_then(Name::used);
        name.is_some_and(|name| self.0.iter().any(|made| made.may_be(&name)))
    }

    /// Whether every table that the statement changes is one of them.
    pub(super) fn has_all_of(&self, statement: &ast::Stmt) -> bool {
        let relation = |it: Option<ast::TableRelationName>| it?.table_name_ref()?.path_ref();
        match statement {
            ast::Stmt::AlterTable(it) => self.has(relation(it.table_relation_name())),
            ast::Stmt::CreateIndex(it) => self.has(relation(it.table_relation_name())),
            ast::Stmt::DropTable(it) => it.table_name_refs().all(|it| self.has(it.path_ref())),
            ast::Stmt::Truncate(it) => {
                it.table_list().is_some_and(|it| it.table_relation_names().all(|it| self.has(relation(Some(it)))))
            }
            _ => false,
        }
    }

    /// The same for an UPDATE or a DELETE, wherever it stands.
    pub(super) fn has_rows_of(&self, relation: Option<ast::RelationName>) -> bool {
        self.has(relation.and_then(|it| it.relation_name_ref()).and_then(|it| it.path_ref()))
    }
}

/// The bytes of a node, without the blanks and comments in front of it.
pub(super) fn place(node: &impl AstNode) -> std::ops::Range<usize> {
    let range = node.syntax().text_range();
    let first = node.syntax().children_with_tokens().find(|it| !it.kind().is_trivia());
    let start = first.map_or(range.start(), |it| it.text_range().start());
    start.into()..range.end().into()
}
