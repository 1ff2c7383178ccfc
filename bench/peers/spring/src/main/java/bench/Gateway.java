package bench;

import java.nio.charset.StandardCharsets;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.data.redis.connection.RedisConnectionFactory;
import org.springframework.data.redis.listener.PatternTopic;
import org.springframework.data.redis.listener.RedisMessageListenerContainer;
import org.springframework.messaging.simp.SimpMessagingTemplate;
import org.springframework.messaging.simp.config.MessageBrokerRegistry;
import org.springframework.messaging.support.MessageBuilder;
import org.springframework.web.socket.config.annotation.EnableWebSocketMessageBroker;
import org.springframework.web.socket.config.annotation.StompEndpointRegistry;
import org.springframework.web.socket.config.annotation.WebSocketMessageBrokerConfigurer;

/** STOMP with Spring's simple broker; a message of the Redis channel one:NAME goes to /topic/NAME. */
@SpringBootApplication
@EnableWebSocketMessageBroker
public class Gateway implements WebSocketMessageBrokerConfigurer {
  private static final String PREFIX = "one:";

  public static void main(String[] arguments) {
    SpringApplication.run(Gateway.class, arguments);
  }

  @Override
  public void configureMessageBroker(MessageBrokerRegistry registry) {
    registry.enableSimpleBroker("/topic");
  }

  @Override
  public void registerStompEndpoints(StompEndpointRegistry registry) {
    registry.addEndpoint("/stomp");
  }

  @Bean
  RedisMessageListenerContainer messages(RedisConnectionFactory redis, SimpMessagingTemplate template) {
    var container = new RedisMessageListenerContainer();
    container.setConnectionFactory(redis);
    container.addMessageListener(
        (message, pattern) -> {
          var name = new String(message.getChannel(), StandardCharsets.UTF_8).substring(PREFIX.length());
          template.send("/topic/" + name, MessageBuilder.withPayload(message.getBody()).build());
        },
        new PatternTopic(PREFIX + "*"));
    return container;
  }
}
