import com.fasterxml.jackson.databind.ObjectMapper;
import java.lang.reflect.Type;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import org.springframework.messaging.converter.StringMessageConverter;
import org.springframework.messaging.converter.CompositeMessageConverter;
import org.springframework.messaging.converter.SimpleMessageConverter;
import org.springframework.messaging.simp.stomp.StompHeaders;
import org.springframework.messaging.simp.stomp.StompSession;
import org.springframework.messaging.simp.stomp.StompSessionHandlerAdapter;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.web.socket.WebSocketHttpHeaders;
import org.springframework.web.socket.client.standard.StandardWebSocketClient;
import org.springframework.web.socket.messaging.WebSocketStompClient;
import org.springframework.web.socket.sockjs.client.SockJsClient;
import org.springframework.web.socket.sockjs.client.WebSocketTransport;

/** CLIENT URL TOKEN DESTINATION...: Spring's client as its documentation sets it up; prints a line of JSON for
 * each thing it gets, until its standard input ends. CLIENT: spring, or spring-sockjs. */
public class SpringStompClient {
  private static final ObjectMapper JSON = new ObjectMapper();

  private static synchronized void say(Map<String, ?> record) {
    try {
      System.out.println(JSON.writeValueAsString(record));
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  public static void main(String[] arguments) throws Exception {
    String url = arguments[1];
    var socket = new StandardWebSocketClient();
    var client = new WebSocketStompClient(
        arguments[0].equals("spring") ? socket : new SockJsClient(List.of(new WebSocketTransport(socket))));
    var scheduler = new ThreadPoolTaskScheduler();
    scheduler.initialize();
    client.setTaskScheduler(scheduler); // with it, Spring asks for heartbeats
    // Strings whatever the content type: the bodies are compared, not mapped.
    client.setMessageConverter(
        new CompositeMessageConverter(List.of(new AnyText(), new SimpleMessageConverter())));
    var connect = new StompHeaders();
    connect.add("Authorization", "Bearer " + arguments[2]);
    var handler = new StompSessionHandlerAdapter() {
      @Override
      public void afterConnected(StompSession session, StompHeaders headers) {
        say(Map.of("event", "connected", "headers", headers.toSingleValueMap()));
        for (int n = 3; n < arguments.length; n++) {
          session.subscribe(arguments[n], this);
        }
      }

      @Override
      public Type getPayloadType(StompHeaders headers) {
        return String.class;
      }

      @Override
      public void handleFrame(StompHeaders headers, Object payload) {
        boolean message = headers.getFirst("message-id") != null;
        say(Map.of("event", message ? "message" : "error", "body", String.valueOf(payload),
            "destination", String.valueOf(headers.getDestination()), "headers", headers.toSingleValueMap()));
      }

      @Override
      public void handleTransportError(StompSession session, Throwable error) {
        say(Map.of("event", "closed", "body", String.valueOf(error)));
        // Spring leaves coming back to the application.
        scheduler.schedule(
            () -> client.connectAsync(url, new WebSocketHttpHeaders(), connect, this),
            Instant.now().plusMillis(200));
      }
    };
    client.connectAsync(url, new WebSocketHttpHeaders(), connect, handler);
    while (System.in.read() >= 0) {}
    client.stop();
    System.exit(0);
  }

  private static class AnyText extends StringMessageConverter {
    @Override
    protected boolean supportsMimeType(org.springframework.messaging.MessageHeaders headers) {
      return true;
    }
  }
}
