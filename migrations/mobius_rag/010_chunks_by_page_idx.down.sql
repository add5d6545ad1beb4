DROP INDEX hierarchical_chunks_page;
