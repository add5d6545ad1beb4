DROP INDEX answer_citations_source;
