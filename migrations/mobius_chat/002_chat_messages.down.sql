DROP TABLE chat_messages;
DROP TYPE message_author;
